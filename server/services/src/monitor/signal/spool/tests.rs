//! A spool while its disk is busy.

use std::sync::mpsc;
use std::time::Duration;

use super::*;

#[test]
fn the_names_are_read_while_the_disk_works() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool"), 1_000_000).unwrap();
    let names = (spool.writer(), spool.listener());
    let reader = spool.clone();
    let (send, read) = mpsc::channel();

    // Hold the lock like a thread that waits for the disk.
    let _working = spool.inner.lock();
    std::thread::spawn(move || send.send((reader.writer(), reader.listener())));

    assert_eq!(read.recv_timeout(Duration::from_secs(20)), Ok(names));
    assert!(!names.0.is_nil() && !names.1.is_nil());
}
