//! Starts the loops, restarts them after failures, and drains them when the server stops.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadbeat_store::connection::gate::Gate;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::operation::duty::Duty;

/// The pause before a loop that ended without an order is restarted.
const AGAIN: Duration = Duration::from_secs(1);
/// A failed loop counts as working again once it has run for this long. A loop that fails with each signal never does.
const STEADY: Duration = Duration::from_secs(2);

/// The loops of this process that have failed and do not work again yet. Clones are cheap.
#[derive(Debug, Clone, Default)]
pub struct Health {
    failed: Arc<Mutex<BTreeSet<String>>>,
}

impl Health {
    /// Returns the names of the loops that have failed.
    #[must_use]
    pub fn failed(&self) -> Vec<String> {
        self.names(|failed| failed.iter().cloned().collect())
    }

    /// Returns true if every loop works.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.names(|failed| failed.is_empty())
    }

    fn names<T>(&self, read: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        read(&mut self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Like [`keep_running`], for a loop that starts when the gate opens.
pub fn keep_running_behind<F, L>(
    gate: &Gate,
    duty: impl Into<Duty>,
    stop: CancellationToken,
    start: F,
) -> JoinHandle<()>
where
    F: Fn(CancellationToken) -> L + Send + 'static,
    L: Future<Output = ()> + Send + 'static,
{
    let (gate, duty) = (gate.clone(), duty.into());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => return,
            () = gate.opened() => {}
        }
        // Dropping this task does not end the loop. Only the loop's token does.
        let _ = keep_running(duty, stop, start).await;
    })
}

/// Runs a loop until its token is cancelled. Logs a panic of the loop and restarts it, so that one bug does not stop the other loops.
pub fn keep_running<F, L>(duty: impl Into<Duty>, stop: CancellationToken, start: F) -> JoinHandle<()>
where
    F: Fn(CancellationToken) -> L + Send + 'static,
    L: Future<Output = ()> + Send + 'static,
{
    keep_working(duty.into(), Health::default(), stop, start)
}

/// Runs a loop like [`keep_running`], and records in `health` and in its duty when the loop does not work.
pub fn keep_working<F, L>(duty: Duty, health: Health, stop: CancellationToken, start: F) -> JoinHandle<()>
where
    F: Fn(CancellationToken) -> L + Send + 'static,
    L: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        let name = duty.name().to_owned();
        while !stop.is_cancelled() {
            let mut running = tokio::spawn(start(stop.clone()));
            let ended = tokio::select! {
                biased;
                ended = &mut running => ended,
                () = tokio::time::sleep(STEADY) => {
                    health.names(|failed| failed.remove(&name));
                    duty.set_works(true);
                    running.await
                }
            };
            match ended {
                Ok(()) if stop.is_cancelled() => return,
                Ok(()) => tracing::error!(name, "a loop ended by itself and is restarted"),
                Err(error) => tracing::error!(name, %error, "a loop failed and is restarted"),
            }
            health.names(|failed| failed.insert(name.clone()));
            duty.failed();
            duty.set_works(false);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    })
}
