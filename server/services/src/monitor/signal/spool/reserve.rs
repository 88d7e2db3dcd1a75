//! Disk space that is reserved for a full disk. The spool needs it to delete signals that are in the database.
//!
//! A file next to the spool occupies the space. If the spool lacks space for opening or writing its file, it deletes that file. It keeps no new
//! signal until the reserve exists again.

use std::fs::{File, OpenOptions};
use std::io::{Error, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The size of the reserve. Measured on a full disk: reopening the file and deleting 512 signals need less.
const BYTES: usize = 512 * 1024;

/// The reserved space of one spool file.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Returns the reserve of this spool file. The first [`Reserve::keep`] takes its space.
    pub(super) fn beside(spool: &Path) -> Self {
        let mut name = spool.as_os_str().to_owned();
        name.push(".reserve");
        Self { path: name.into() }
    }

    /// Takes the space, unless it is already taken.
    ///
    /// # Errors
    /// If the disk is full.
    pub(super) fn keep(&self) -> Result<(), Error> {
        let is_kept = std::fs::metadata(&self.path).is_ok_and(|file| file.len() >= BYTES as u64);
        if is_kept {
            return Ok(());
        }
        let taken = self.take();
        if taken.is_err() {
            self.release();
        }
        taken
    }

    fn take(&self) -> Result<(), Error> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        // Some file systems compress zeros, so write other bytes.
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..BYTES / 4_096 {
            let mut block = [0_u8; 4_096];
            for word in block.chunks_exact_mut(8) {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                word.copy_from_slice(&noise.to_le_bytes());
            }
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    /// Frees the space. Returns false if there was none.
    pub(super) fn release(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}
