//! How many files this process may have open: each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than this helps nobody, and some systems allow a billion.
const MOST: u64 = 1_048_576;
/// Files that are no connections of clients: connections to the database, to receivers of alerts, the spool, logs.
const RESERVED: u64 = 200;

/// Raises the limit of this process as far as it may without privileges; answers how many connections there is room for.
///
/// Most systems start a process with 1,024, and allow it many more when it asks.
pub fn raise() -> usize {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be read");
            (1_024, 1_024)
        }
    };
    let wanted = hard.min(MOST).max(soft);
    let files = match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit of open files cannot be raised");
            soft
        }
    };
    if files < 4_096 {
        tracing::warn!(
            files,
            "few files may be open at a time: raise the limit (LimitNOFILE, ulimit -n)"
        );
    }
    // At least a few, whatever the limit.
    usize::try_from(files.saturating_sub(RESERVED))
        .unwrap_or(usize::MAX)
        .max(16)
}
