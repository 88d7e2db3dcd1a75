//! The limit of open files of this process: each connection needs one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most files that the process asks for. More has no use, and some systems allow a billion.
const MOST: u64 = 1_048_576;
/// Files other than clients' connections: connections to the database and to receivers of alerts, the spool, logs.
const RESERVED: u64 = 200;

/// Raises the limit of this process as far as it may without privileges. Returns the number of connections that the limit then allows.
///
/// Most systems start a process with a limit of 1,024, but let it raise the limit to many more.
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
    // Return at least a few connections, whatever the limit.
    usize::try_from(files.saturating_sub(RESERVED))
        .unwrap_or(usize::MAX)
        .max(16)
}
