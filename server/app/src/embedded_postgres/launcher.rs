//! The launcher: a hidden first argument of this program.
//!
//! Three steps must happen in the child between fork and exec: giving up root, opening the folder before that, and asking the kernel for a signal
//! when the parent dies. From Rust, doing so is `unsafe`. The server therefore starts *itself* with a hidden first argument. That small process does
//! the steps ([`launch_if_asked`]) and becomes PostgreSQL by exec. It keeps its process id, so PostgreSQL is our direct child.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[cfg(target_os = "linux")]
use nix::sys::signal::Signal;
#[cfg(target_os = "linux")]
use nix::unistd::Gid;
use nix::unistd::Uid;

use super::owner::user_name;
use super::processes::identity;

pub(super) const LAUNCH_WORD: &str = "__run-postgres";
pub(super) const SAME_USER: &str = "-";
/// Stands for the database folder in the arguments of the launched program. The launcher replaces it by a name under which the program's user can
/// reach the folder.
pub(super) const FOLDER: &str = "{folder}";

/// Becomes PostgreSQL if this process was started for that. `main` must call this first, before any thread exists:
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     if let Some(failure) = deadbeat_app::embedded_postgres::launch_if_asked() {
///         return failure;
///     }
///     // … the ordinary main
/// #   ExitCode::SUCCESS
/// }
/// ```
///
/// Returns `None` for an ordinary start. If it succeeds, it never returns.
#[must_use]
pub fn launch_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != LAUNCH_WORD {
        return None;
    }
    let Err(reason) = launch(args);
    // Standard error is PostgreSQL's log here, and the server shows the log's last lines. If writing fails, there is no other place for the message.
    let _ = writeln!(io::stderr(), "deadbeat: {reason}");
    Some(ExitCode::from(71))
}

fn launch(mut args: impl Iterator<Item = OsString>) -> Result<Infallible, String> {
    let mut next = |what: &str| {
        args.next()
            .ok_or_else(|| format!("{LAUNCH_WORD} is started by the server itself (no {what} given)"))
    };
    let parent = next("parent")?;
    let user = next("user")?;
    let folder = PathBuf::from(next("folder")?);
    let program = next("program")?;

    // Open the folder while this process may still be root: the other user may not be allowed to enter the folders above.
    let opened = File::open(&folder).map_err(|error| format!("cannot open {}: {error}", folder.display()))?;
    // PostgreSQL looks for its own files by changing the folder and back, which must not fail.
    std::env::set_current_dir("/").map_err(|error| format!("cannot enter /: {error}"))?;
    let mut command = Command::new(&program);
    if user != SAME_USER {
        let (uid, gid) = parse_user(&user).ok_or("the user is not uid:gid")?;
        become_user(&mut command, uid, gid)
            .map_err(|error| format!("cannot become user {uid} (is this process allowed to?): {error}"))?;
    }
    // After changing the user, because that would clear this setting.
    end_with_parent(&parent)?;
    let name = reachable_name(&folder, &opened)?;
    command.args(args.map(|arg| {
        if arg == FOLDER {
            name.as_os_str().to_owned()
        } else {
            arg
        }
    }));
    let error = command.exec();
    Err(format!(
        "cannot run {} as user {}: {error}",
        Path::new(&program).display(),
        user_name(Uid::effective())
    ))
}

fn parse_user(text: &OsStr) -> Option<(u32, u32)> {
    let (uid, gid) = text.to_str()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

#[cfg(target_os = "linux")]
fn become_user(_: &mut Command, uid: u32, gid: u32) -> nix::Result<()> {
    nix::unistd::setgroups(&[])?;
    nix::unistd::setgid(Gid::from_raw(gid))?;
    nix::unistd::setuid(Uid::from_raw(uid))
}

/// Other systems have no parent-death signal to set afterwards, so exec itself can change the user.
#[cfg(not(target_os = "linux"))]
fn become_user(command: &mut Command, uid: u32, gid: u32) -> nix::Result<()> {
    command.uid(uid).gid(gid);
    Ok(())
}

#[cfg(target_os = "linux")]
fn end_with_parent(parent: &OsStr) -> Result<(), String> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGINT)
        .map_err(|error| format!("cannot ask for a signal at the server's end: {error}"))?;
    // If the server died before the line above, the signal would never come.
    let is_alive = parent.to_str() == Some(&std::os::unix::process::parent_id().to_string());
    is_alive
        .then_some(())
        .ok_or_else(|| "the server ended while PostgreSQL was starting".to_owned())
}

/// Does nothing, because this system has no such signal. The next start stops the processes that a killed server left (see
/// `Cluster::end_leftovers`).
#[cfg(not(target_os = "linux"))]
fn end_with_parent(_: &OsStr) -> Result<(), String> {
    Ok(())
}

/// Returns the name by which the current user can reach the folder.
///
/// That is its plain path, unless a folder above is closed to that user (root's `/root/deadbeat`). Otherwise it is a name like `/proc/self/fd/3`:
/// PostgreSQL and all its processes inherit the opened folder. That name always refers to this folder, and no permission of the folders above
/// matters.
fn reachable_name(folder: &Path, opened: &File) -> Result<PathBuf, String> {
    let cannot = |error: &dyn std::error::Error| format!("cannot use {}: {error}", folder.display());
    let metadata = opened.metadata().map_err(|error| cannot(&error))?;
    let is_folder = |name: &Path| identity(name) == Some((metadata.dev(), metadata.ino()));
    if is_folder(folder) {
        return Ok(folder.to_owned());
    }
    // Unlike what std opens, a duplicate survives exec. It is kept as a plain number, so that nothing here closes it.
    let inherited = nix::unistd::dup(opened)
        .map_err(|error| cannot(&error))?
        .into_raw_fd();
    let through_proc = PathBuf::from(format!("/proc/self/fd/{inherited}"));
    if is_folder(&through_proc) {
        return Ok(through_proc);
    }
    let closed = folder
        .ancestors()
        .filter(|above| identity(above).is_none())
        .last()
        .and_then(Path::parent)
        .unwrap_or(folder);
    let user = user_name(Uid::effective());
    Err(format!(
        "user {user} may not enter {0}: choose a data folder elsewhere, or allow it: chmod o+x {0}",
        closed.display()
    ))
}
