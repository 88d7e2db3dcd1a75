//! The owner of the database, as which PostgreSQL runs.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::path::Path;

use nix::unistd::{Gid, Uid, User};

use super::error::{EmbeddedPostgresError as Error, io_error};

/// Returns the user as which PostgreSQL must run, if that is not our own. If we are root, it is the owner of the database, at first `postgres` or
/// `nobody`. Also returns true if there is a database that belongs to root and must be handed over.
pub(super) fn database_user(data_dir: &Path, cluster: &Path) -> Result<(Option<(Uid, Gid)>, bool), Error> {
    let us = Uid::effective();
    let owner = match fs::metadata(cluster) {
        Ok(found) => Some((Uid::from_raw(found.uid()), Gid::from_raw(found.gid()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(format!("examine {}", cluster.display()))(error)),
    };
    match owner {
        Some((uid, _)) if !us.is_root() && uid != us => {
            let (owner, us) = (user_name(uid), user_name(us));
            Err(Error::ForeignOwner {
                cluster: cluster.to_owned(),
                data_dir: data_dir.to_owned(),
                owner,
                us,
            })
        }
        _ if !us.is_root() => Ok((None, false)),
        Some((uid, gid)) if !uid.is_root() => Ok((Some((uid, gid)), false)),
        _ => {
            let named = |name| User::from_name(name).ok().flatten();
            let user = named("postgres")
                .or_else(|| named("nobody"))
                .ok_or(Error::NoUserToRunAs)?;
            Ok((Some((user.uid, user.gid)), owner.is_some()))
        }
    }
}

/// Gives a whole folder to a user. The folder itself comes last, so that the next start repeats an interrupted run.
pub(super) fn hand_over(folder: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            hand_over(&entry.path(), uid, gid)?;
        } else {
            lchown(entry.path(), Some(uid.as_raw()), Some(gid.as_raw()))?;
        }
    }
    chown(folder, Some(uid.as_raw()), Some(gid.as_raw()))
}

pub(super) fn user_name(uid: Uid) -> String {
    User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}
