//! The machine's processes that use the database folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
#[cfg(not(target_os = "linux"))]
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Returns every living PostgreSQL process whose working folder is this one: the postmaster and all its children. Zombies are not among them.
#[cfg(target_os = "linux")]
pub(super) fn postgres_processes_in(cluster: &Path, _: Option<Pid>) -> Vec<Pid> {
    let Some(folder) = identity(cluster) else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
    pids.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
            && identity(Path::new(&format!("/proc/{pid}/cwd"))) == Some(folder)
    })
    .collect()
}

/// Without /proc, returns the process that postmaster.pid names if it is a PostgreSQL.
#[cfg(not(target_os = "linux"))]
pub(super) fn postgres_processes_in(_: &Path, earlier: Option<Pid>) -> Vec<Pid> {
    let is_postgres = |pid: &Pid| {
        let output = Command::new("ps")
            .args(["-o", "comm=", "-p", &pid.to_string()])
            .output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout)
                .trim()
                .ends_with("postgres")
        })
    };
    earlier
        .into_iter()
        .filter(|pid| process_exists(*pid) && is_postgres(pid))
        .collect()
}

/// Returns true if a process has this number. It may be a zombie or a process of another user.
pub(super) fn process_exists(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// Returns the identity of a folder, which does not depend on the folder's name.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}
