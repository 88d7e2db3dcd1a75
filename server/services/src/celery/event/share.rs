//! Limits how many items of one project are in the queues that all projects share.

use std::time::Duration;

use crate::people::share::Shares;

/// The most stages of one project that are being handled, from the history to the pings. This is two commits of the history, so that one gathers
/// while the other is written. Stages of another project wait for at most this many.
const STAGES: u32 = 4_096;
/// The most requests of one project that wait for their turn, each with a batch of up to 64 kB. Larger batches wait for a turn before they are
/// parsed.
const WAITING: usize = 250;
/// How long a request waits. The SDK waits longer for the answer to a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most signals of one project's runs in the writers' queues. A writer's batch takes 64 signals of one address, so pings of others wait for at
/// most four of them, however many runs one project reports.
const SIGNALS: u32 = 256;
/// The most signals that a request puts into the queues at once. While these are written, those of another request gather.
pub(super) const TOGETHER: usize = 128;

/// Returns the shares of [`STAGES`].
pub(crate) fn stages() -> Shares {
    Shares::new(STAGES, WAITING, PATIENCE)
}

/// Returns the shares of [`SIGNALS`]. A request that waits for them already has places among the stages.
pub(crate) fn signals() -> Shares {
    Shares::new(SIGNALS, STAGES as usize, PATIENCE)
}
