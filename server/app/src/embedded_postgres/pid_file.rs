//! `postmaster.pid`, PostgreSQL's file about its own process.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::PORT;

/// The contents of `postmaster.pid`. By this file PostgreSQL says where its socket is and whether it is ready (`pg_ctl` also waits for it).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: Pid,
    pub(super) port: u16,
    /// Relative to the database folder, or absolute.
    pub(super) socket_dir: PathBuf,
    pub(super) is_ready: bool,
}

impl PidFile {
    pub(super) fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(cluster.join("postmaster.pid")).ok()?)
    }

    /// Parses the lines: pid, folder, start time, port, socket folder, address, shared memory key, state. PostgreSQL writes the later ones as it
    /// starts.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        // In single-user mode PostgreSQL writes its number negated, and kill() would take a negative number for a process group.
        let pid = lines
            .next()?
            .trim()
            .parse::<i32>()
            .ok()?
            .checked_abs()
            .filter(|pid| *pid > 0)?;
        let port = lines
            .nth(2)
            .and_then(|line| line.trim().parse().ok())
            .unwrap_or(PORT);
        let socket_dir = lines.next().map(PathBuf::from).unwrap_or_default();
        let is_ready = lines.nth(2).is_some_and(|line| line.trim() == "ready");
        Some(Self {
            pid: Pid::from_raw(pid),
            port,
            socket_dir,
            is_ready,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_file_is_ready_only_with_its_eighth_line() {
        let whole = "4711\n/data/postgres\n1790000000\n5432\n.\n\n  123 456\nready   \n";
        let ready = PidFile {
            pid: Pid::from_raw(4711),
            port: 5432,
            socket_dir: ".".into(),
            is_ready: true,
        };

        assert_eq!(PidFile::parse(whole), Some(ready));
        for state in ["starting", "stopping", "standby"] {
            assert!(PidFile::parse(&whole.replace("ready", state)).is_some_and(|file| !file.is_ready));
        }
        assert!(PidFile::parse("4711\n/data/postgres\n").is_some_and(|file| !file.is_ready));
        assert_eq!(
            PidFile::parse("-4711\n").map(|file| file.pid),
            Some(Pid::from_raw(4711))
        );
        for broken in ["", "0\n", "not a number\n", "99999999999\n"] {
            assert_eq!(PidFile::parse(broken), None);
        }
    }
}
