//! The request on which this thread currently works: its id, and who sent it.
//!
//! A request never changes its thread, but a thread switches between many requests. [`within`] therefore sets the current request for each turn.

use std::cell::RefCell;

use actix_web::http::header::{HeaderName, HeaderValue};
use deadbeat_domain::ids::{AccountId, ApiKeyId};
use tracing::Span;
use uuid::Uuid;

/// The header that carries the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that the server accepts from a client, in bytes.
const MOST_BYTES: usize = 64;

/// The sender of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentBy {
    /// The holder of this API key.
    Key(ApiKeyId),
    /// A person who is signed in to this account.
    Account(AccountId),
}

/// A request that the server is handling.
#[derive(Debug)]
pub struct Current {
    pub(crate) id: HeaderValue,
    pub(crate) sent_by: Option<SentBy>,
    /// True for a ping, even if its path is at the root.
    pub(crate) is_ping: bool,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

impl Current {
    /// Makes the current request. A request without a usable id from its client gets a new one.
    #[must_use]
    pub fn new(sent: Option<&HeaderValue>) -> Self {
        Self {
            id: sent.filter(|id| is_usable(id)).cloned().unwrap_or_else(made),
            sent_by: None,
            is_ping: false,
        }
    }

    /// Returns the id as text.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }
}

/// Returns true if logs and headers can contain the id: 1 to 64 visible ASCII characters without blanks.
fn is_usable(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=MOST_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// Makes a new id. `Uuid::new_v4` would make a system call for each ping.
fn made() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let mut buffer = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// One turn of a request. When the turn ends, also by a panic, the request moves from the thread back to its place.
struct Turn<'a>(&'a mut Option<Current>);

impl<'a> Turn<'a> {
    fn begin(current: &'a mut Option<Current>) -> Self {
        CURRENT.with_borrow_mut(|place| std::mem::swap(place, current));
        Self(current)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|place| std::mem::swap(place, self.0));
    }
}

/// Does some work as one turn of this request.
pub(crate) fn within<T>(current: &mut Option<Current>, work: impl FnOnce() -> T) -> T {
    let _turn = Turn::begin(current);
    work()
}

/// Returns the id of the current request. Outside of a request, it returns a new id.
#[must_use]
pub fn id() -> String {
    let current = CURRENT.with_borrow(|current| current.as_ref().map(|current| current.id().to_owned()));
    current.unwrap_or_else(|| Uuid::new_v4().to_string())
}

/// Notes who sent the current request.
pub fn sent_by(who: SentBy) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            current.sent_by = Some(who);
        }
    });
}

/// Notes that the current request is a ping.
pub fn is_ping() {
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            current.is_ping = true;
        }
    });
}

/// Returns a span with the id of the current request, for the few log lines about pings: a ping usually has no span of its own.
#[must_use]
pub fn span() -> Span {
    let around = Span::current();
    if around.is_none() {
        tracing::error_span!("request", request_id = %id())
    } else {
        around
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(sent: &[u8]) -> String {
        Current::new(Some(&HeaderValue::from_bytes(sent).unwrap()))
            .id()
            .to_owned()
    }

    #[test]
    fn a_short_visible_id_is_taken_and_any_other_is_replaced() {
        let longest = "x".repeat(MOST_BYTES);
        for usable in ["7", "!~", "trace-1/2", longest.as_str()] {
            assert_eq!(id_of(usable.as_bytes()), usable);
        }

        let too_long = "x".repeat(MOST_BYTES + 1);
        let others: [&[u8]; 5] = [b"", b"a b", b"a\tb", "ä".as_bytes(), too_long.as_bytes()];
        for other in others {
            let id = id_of(other);
            assert!(Uuid::try_parse(&id).is_ok(), "{id}");
        }
        assert_ne!(made(), made());
    }

    #[test]
    fn a_request_is_known_in_its_turns_only_even_after_a_panic() {
        let mut one = Some(Current::new(Some(&HeaderValue::from_static("one"))));
        let mut two = Some(Current::new(Some(&HeaderValue::from_static("two"))));

        assert_eq!(within(&mut one, id), "one");
        assert_eq!(within(&mut two, || within(&mut one, id)), "one");
        assert_eq!(within(&mut two, id), "two");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            within(&mut one, || panic!("a test's"));
        }));
        assert!(panicked.is_err());
        assert!(Uuid::try_parse(&id()).is_ok(), "no request is under way");

        within(&mut one, || sent_by(SentBy::Account(AccountId(Uuid::nil()))));
        let sent_by = |current: &Option<Current>| current.as_ref().unwrap().sent_by;
        assert_eq!(sent_by(&one), Some(SentBy::Account(AccountId(Uuid::nil()))));
        assert_eq!(sent_by(&two), None);
    }
}
