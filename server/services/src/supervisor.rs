//! Starts the loops, starts them again when they fail, and drains them when the server stops.

use std::future::Future;
use std::time::Duration;

use deadbeat_store::gate::Gate;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Pause before a loop that ended by itself is started again.
const AGAIN: Duration = Duration::from_secs(1);

/// As [`keep_running`], of a loop that begins when the gate opens.
pub fn keep_running_behind<F, L>(
    gate: &Gate,
    name: &'static str,
    stop: CancellationToken,
    start: F,
) -> JoinHandle<()>
where
    F: Fn(CancellationToken) -> L + Send + 'static,
    L: Future<Output = ()> + Send + 'static,
{
    let gate = gate.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => return,
            () = gate.opened() => {}
        }
        // Dropping this task ends nothing: the loop ends by its token alone.
        let _ = keep_running(name, stop, start).await;
    })
}

/// Runs a loop until the token says stop. A loop that panics is reported and started again: one bug must not silence the rest.
pub fn keep_running<F, L>(name: &'static str, stop: CancellationToken, start: F) -> JoinHandle<()>
where
    F: Fn(CancellationToken) -> L + Send + 'static,
    L: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while !stop.is_cancelled() {
            match tokio::spawn(start(stop.clone())).await {
                Ok(()) if stop.is_cancelled() => return,
                Ok(()) => tracing::error!(name, "a loop ended by itself; it is started again"),
                Err(error) => tracing::error!(name, %error, "a loop failed; it is started again"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    })
}
