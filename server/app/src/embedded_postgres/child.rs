//! Starts PostgreSQL's programs as our children through the launcher, and ends them.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::POLL;
use super::binaries::{Binaries, library_path};
use super::cluster::Cluster;
use super::error::{EmbeddedPostgresError as Error, io_error};
use super::launcher::{LAUNCH_WORD, SAME_USER};

const MAKE_LIMIT: Duration = Duration::from_mins(3);
const FAST_STOP_LIMIT: Duration = Duration::from_secs(30);
const IMMEDIATE_STOP_LIMIT: Duration = Duration::from_secs(5);

impl Cluster {
    pub(super) fn run_to_end(
        &self,
        doing: &'static str,
        binaries: &Binaries,
        program: &str,
        folder: &Path,
        args: &[&str],
        input: &str,
    ) -> Result<(), Error> {
        let (mut child, log_from) = self.spawn(doing, binaries, program, folder, args, Stdio::piped())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends before it reads its input says why by its exit status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let began = Instant::now();
        loop {
            match child.try_wait().map_err(io_error(doing))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.log.program_error(doing, exit_words(status), log_from)),
                None if began.elapsed() > MAKE_LIMIT => {
                    end(&mut child);
                    return Err(self.log.program_error(
                        doing,
                        format!("not done after {} s", MAKE_LIMIT.as_secs()),
                        log_from,
                    ));
                }
                None => thread::sleep(POLL),
            }
        }
    }

    /// Starts one of PostgreSQL's programs in `folder`, through the launcher. Also returns the place in the log where its output begins.
    pub(super) fn spawn(
        &self,
        doing: &str,
        binaries: &Binaries,
        program: &str,
        folder: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: Stdio,
    ) -> Result<(Child, u64), Error> {
        let (log, log_from) = self.log.open()?;
        let user = self
            .run_as
            .map_or_else(|| SAME_USER.to_owned(), |(uid, gid)| format!("{uid}:{gid}"));
        let child = Command::new(&self.launcher)
            .arg(LAUNCH_WORD)
            .args([std::process::id().to_string(), user])
            .args([folder, &binaries.dir.join(program)])
            .args(args)
            // The program must not get our secrets. PGDATA, PGPORT or LC_ALL of the person who started the server must not change anything.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(library_path())
            // A group of its own, so that Ctrl-C reaches only the server, which then stops PostgreSQL in order.
            .process_group(0)
            .stdin(input)
            .stdout(if program == "initdb" {
                Stdio::from(log.try_clone().map_err(io_error(doing))?)
            } else {
                Stdio::null()
            })
            .stderr(log)
            .spawn()
            .map_err(io_error(format!("run {} for {doing}", self.launcher.display())))?;
        Ok((child, log_from))
    }
}

/// Stops PostgreSQL with a fast shutdown: it disconnects its clients and writes all data. If that takes too long, sends stronger signals.
pub(super) fn end(child: &mut Child) {
    for (signal, limit) in [
        (Signal::SIGINT, FAST_STOP_LIMIT),
        (Signal::SIGQUIT, IMMEDIATE_STOP_LIMIT),
    ] {
        let _ = kill(pid_of(child), signal); // it may just have ended; it is not reaped yet, so no other process has its number
        let began = Instant::now();
        while began.elapsed() < limit {
            match child.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(Some(_)) => return,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for PostgreSQL to end");
                    return;
                }
            }
        }
        tracing::warn!(
            signal = signal.as_str(),
            waited_s = limit.as_secs(),
            "PostgreSQL does not stop; sending a stronger signal"
        );
    }
    // Committed data are safe: the next start recovers from the WAL.
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        tracing::error!(%error, "cannot end PostgreSQL");
    }
}

pub(super) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

pub(super) fn exit_words(status: ExitStatus) -> String {
    status.to_string() // "exit status: 1", "signal: 9 (SIGKILL)"
}
