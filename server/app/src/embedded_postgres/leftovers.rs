//! Ends the processes that an earlier PostgreSQL left in the folder.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::cluster::Cluster;
use super::error::{EmbeddedPostgresError as Error, io_error};
use super::pid_file::PidFile;
use super::processes::{postgres_processes_in, process_exists};
use super::{POLL, PORT};

const LEFTOVER_LIMIT: Duration = Duration::from_secs(45);
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(15);

impl Cluster {
    /// Makes sure that no process of an earlier PostgreSQL is left, and that its remaining files do not stop the next one.
    ///
    /// Needs our lock: any PostgreSQL in the folder then belongs to a server that died. Usually that PostgreSQL is already ending.
    pub(super) fn end_leftovers(&self, socket_dir: &Path) -> Result<(), Error> {
        let earlier = PidFile::read(&self.dir).map(|file| file.pid);
        let began = Instant::now();
        let mut asked = None;
        loop {
            // Check all processes, not only the postmaster: two generations of backends on the same files would destroy the data.
            let pids = postgres_processes_in(&self.dir, earlier);
            if pids.is_empty() {
                break;
            }
            // The postmaster stops the other processes in order. Without it they only finish their current work, which may take any time. A recovery
            // follows anyway, so do not wait for them.
            let has_postmaster = earlier.is_some_and(|pid| pids.contains(&pid));
            let is_patient = has_postmaster && began.elapsed() < LEFTOVER_PATIENCE;
            let signal = if is_patient {
                Signal::SIGINT
            } else {
                Signal::SIGQUIT
            };
            if asked != Some(signal) {
                asked = Some(signal);
                tracing::warn!(?pids, folder = %self.dir.display(), "an earlier PostgreSQL is still running; stopping it");
                // SIGINT makes the postmaster stop (a backend would only cancel its query); SIGQUIT ends each process at once.
                for &pid in pids
                    .iter()
                    .filter(|pid| signal == Signal::SIGQUIT || Some(**pid) == earlier)
                {
                    let _ = kill(pid, signal); // it may just have ended
                }
            }
            if began.elapsed() > LEFTOVER_LIMIT {
                let pids = pids
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(Error::StillRunning {
                    cluster: self.dir.clone(),
                    pids,
                });
            }
            thread::sleep(POLL);
        }
        // PostgreSQL itself removes the files of a dead process. But if a zombie or an unrelated process has the recorded number, PostgreSQL refuses
        // to start. The check above has examined every process, so removing the file is safe.
        let stale = PidFile::read(&self.dir).map(|file| file.pid);
        if stale.is_some_and(process_exists) {
            tracing::info!(pid = ?stale, "removing a stale postmaster.pid");
            remove_if_there(&self.dir.join("postmaster.pid"))?;
        }
        remove_if_there(&socket_dir.join(format!(".s.PGSQL.{PORT}.lock")))?;
        remove_if_there(&socket_dir.join(format!(".s.PGSQL.{PORT}")))
    }
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
