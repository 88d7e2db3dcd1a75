//! Keeps requests instead of sending them, for previews.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Answer, Call};

/// The kept requests, in order. Cheap to clone.
#[derive(Clone, Default)]
pub struct Recorder {
    calls: Arc<Mutex<Vec<Call>>>,
}

/// Leaves out the requests, which hold secrets.
impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Takes the kept requests.
    #[must_use]
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a request. Answers 200 with an empty JSON object.
    pub(super) fn keep(&self, call: Call) -> Answer {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
        Answer {
            status: 200,
            retry_after: None,
            body: b"{}".to_vec(),
        }
    }
}
