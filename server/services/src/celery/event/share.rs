//! How much of one project's runs is under way at a time, on the way through queues that all projects share.

use std::time::Duration;

use crate::people::share::Shares;

/// Stages of one project under way, from their history to their pings: two commits of the history, so that one gathers while the other is
/// written. Another project's stages wait for these at most.
const STAGES: u32 = 4_096;
/// Requests of one project that wait for their turn, each with a batch of up to 64 kB; larger ones take turns before they are read.
const WAITING: usize = 250;
/// How long one waits. The SDK waits longer for the answer to a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Signals of one project's runs in the writers' queues. A batch of the writer takes 64 of one address, so pings of others wait for four of
/// them at most, however many runs one project reports.
const SIGNALS: u32 = 256;
/// Signals that a request puts into the queues at once: while these are written, another request's gather.
pub(super) const TOGETHER: usize = 128;

/// The shares of [`STAGES`].
pub(crate) fn stages() -> Shares {
    Shares::new(STAGES, WAITING, PATIENCE)
}

/// The shares of [`SIGNALS`]. Who waits for some has places among the stages already.
pub(crate) fn signals() -> Shares {
    Shares::new(SIGNALS, STAGES as usize, PATIENCE)
}
