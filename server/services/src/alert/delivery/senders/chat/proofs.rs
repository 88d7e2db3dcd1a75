//! Common code of the chat services' tests: messages that try to inject markup, messages that are too long, and all
//! alerts of an incident.

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_domain::ids::MonitorId;
use deadbeat_domain::incident::Fact;
use deadbeat_store::incident::member::Affected;
use deadbeat_testkit::Receiver;
use deadbeat_testkit::receiver::Request;
use serde_json::Value;

use super::super::conformance::outgoing;
use super::super::{Kind, Outgoing, Sender};
use crate::alert::outbox::samples::Sample;

/// Markup and mentions of every service.
pub(in crate::alert::delivery::senders) const EVIL: &str = "@everyone @here @all @**all** @_**x** @*g* <!channel> <@U012> <@&7> <users/all> #general ~town \
     [click](https://evil.example) [r]: https://evil.example <https://evil.example|click> https://evil.example www.evil.example `x` \
     ```y``` *z* ||s|| <b>b</b> <a href=\"https://evil.example\">a</a>";

/// Makes a message in which every text from outside is this text.
pub(in crate::alert::delivery::senders) fn of_text(text: &str) -> Message {
    let mut sample = Sample::storm();
    sample.incident.summary = text.to_owned();
    sample.incident.subject.name = text.to_owned();
    sample.project = text.to_owned();
    let fact = || Fact {
        at: None,
        fact: text.to_owned(),
    };
    sample.incident.evidence = std::iter::repeat_with(fact).take(30).collect();
    let member = |number: usize| {
        let id = MonitorId(uuid::Uuid::from_u128(number as u128));
        (id, text.to_owned())
    };
    sample.affected = Some(Affected {
        first: (0..50).map(member).collect(),
        count: 1_000,
    });
    sample.opened()
}

/// Makes messages that are longer than any service accepts, of characters that some encoding or escape lengthens.
pub(in crate::alert::delivery::senders) fn huge() -> Vec<Message> {
    ["日本語", "🔥", "& < > \" ' \\", "_*`[]()#@://www."]
        .map(|text| of_text(&text.repeat(500)))
        .into()
}

/// Sends the alerts of an incident that is acknowledged, reminded of, escalated and resolved. Each alert gets the
/// handle of the one before it. Returns the number of requests of each alert.
pub(super) async fn life(
    receiver: &Receiver,
    sender: &dyn Sender,
    kind: &str,
    settings: &Value,
    phases: &[Phase],
) -> Vec<Vec<Request>> {
    let mut handle = None;
    let mut requests = Vec::new();
    for phase in phases {
        let before = receiver.requests().len();
        let message = Sample::monitor().message(*phase, "2026-01-02T03:04:05Z");
        let outcome = sender
            .send(Outgoing {
                handle: handle.clone(),
                ..outgoing(kind, settings, message)
            })
            .await;

        let Outcome::Sent {
            code: Some(200),
            handle: Some(new),
        } = outcome
        else {
            panic!("{phase:?}: {outcome:?}")
        };
        assert!(
            !new.to_string().contains("S3CRET"),
            "a handle holds no secret: {new}"
        );
        handle = Some(new);
        requests.push(receiver.requests().split_off(before));
    }
    requests
}

/// The phases of an incident from its start to its end.
pub(super) const LIFE: [Phase; 5] = [
    Phase::Opened,
    Phase::Acknowledged,
    Phase::Reminder,
    Phase::Escalated,
    Phase::Resolved,
];

/// Number of requests that each phase of [`LIFE`] makes: a message; a change; a change and a short message, three
/// times.
pub(super) const LIFE_REQUESTS: [usize; 5] = [1, 1, 2, 2, 2];

/// Returns the number of requests that each alert made.
pub(super) fn counts(requests: &[Vec<Request>]) -> Vec<usize> {
    requests.iter().map(Vec::len).collect()
}

/// Returns the body of a request as JSON.
pub(in crate::alert::delivery::senders) fn json_of(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

/// Checks a table of settings, and that no fault repeats a secret.
pub(in crate::alert::delivery::senders) fn settings_are(kind: &dyn Kind, table: &[(Value, bool)]) {
    for (settings, is_good) in table {
        let checked = kind.check_new(&Settings::new(kind.name(), settings.as_object().unwrap().clone()));
        assert_eq!(checked.is_ok(), *is_good, "{settings}: {checked:?}");
        for fault in checked.err().into_iter().flatten() {
            assert!(fault.pointer.starts_with("/settings"), "{fault:?}");
            assert!(!format!("{fault:?}").contains("S3CRET"), "{fault:?}");
        }
    }
}
