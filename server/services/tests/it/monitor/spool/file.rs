//! The file of a spool: which process reads it, and which damage it survives.

use std::os::unix::fs::PermissionsExt;

use deadbeat_services::monitor::signal::spool::{Spool, SpoolError};

use super::{Folder, bodies, lone};

#[tokio::test]
async fn nobody_else_reads_what_is_kept() {
    let folder = Folder::new();
    let file = folder.0.path().join("data").join("spool.redb");
    let _held = Spool::open(&file, 1_000).unwrap();

    let rights = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(rights(&file), 0o600);
    assert_eq!(rights(file.parent().unwrap()), 0o700);
}

#[tokio::test]
async fn a_file_that_is_in_use_is_left_alone() {
    let folder = Folder::new();
    let _held = folder.open();

    assert!(matches!(
        Spool::open(&folder.file(), 1_000),
        Err(SpoolError::File(_))
    ));
    assert_eq!(folder.names(), ["spool.redb"]);
}

#[tokio::test]
async fn a_file_that_is_no_spool_is_kept_aside_each_time_under_a_name_of_its_own() {
    let folder = Folder::new();
    for garbage in [b"not a spool".to_vec(), vec![0xff; 50_000]] {
        std::fs::write(folder.file(), &garbage).unwrap();

        let spool = folder.open();

        assert_eq!(spool.signals(), 0);
        spool.append(1..=1, &[lone("after")]).await.unwrap();
        assert_eq!(bodies(&spool).await, ["after"]);
    }
    assert_eq!(
        folder.names(),
        [
            "spool.redb",
            "spool.redb.reserve",
            "spool.redb.unreadable-1",
            "spool.redb.unreadable-2"
        ]
    );
    let kept = std::fs::read(folder.0.path().join("spool.redb.unreadable-1")).unwrap();
    assert_eq!(kept, b"not a spool");
}

/// However the end of the file is cut or damaged, the file opens and contains whole signals from the front. A file that it gives up is kept.
#[tokio::test]
async fn a_torn_or_spoilt_end_of_the_file_is_survived() {
    let made = Folder::new();
    let spool = made.open();
    for n in 1..=40 {
        let body = format!("{n:02} {}", "x".repeat(3_000));
        spool.append(n..=n, &[lone(&body)]).await.unwrap();
    }
    // The bytes that kill -9 leaves: a copy of the file while the database is open.
    let killed = std::fs::read(made.file()).unwrap();
    drop(spool);
    let closed = std::fs::read(made.file()).unwrap();
    let (mut whole, mut aside) = (0, 0);
    for (name, file) in [("killed", &killed), ("closed", &closed)] {
        let all = file.len() / 4_096;
        // An empty file is a new file.
        for pages in [0, 1, 2, 5, 20, all / 2, all - 1] {
            let from = file.len().saturating_sub(pages * 4_096);
            let mut zeroed = file.clone();
            zeroed[from..].fill(0);
            let mut spoilt = file.clone();
            for (place, byte) in spoilt[from..].iter_mut().enumerate() {
                *byte = (place * 31 % 251) as u8;
            }
            for (how, bytes) in [("cut", &file[..from]), ("zeroed", &zeroed), ("spoilt", &spoilt)] {
                let about = format!("{name}, {pages} pages {how}");
                let folder = Folder::new();
                std::fs::write(folder.file(), bytes).unwrap();

                let spool =
                    Spool::open(&folder.file(), 1_000_000).unwrap_or_else(|error| panic!("{about}: {error}"));

                let kept = bodies(&spool).await;
                let numbers: Vec<usize> = kept.iter().map(|body| body[..2].parse().unwrap()).collect();
                assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "{about}");
                assert!(kept.iter().all(|body| body.len() == 3_003), "{about}");
                let was_set_aside = folder.names().len() > 1;
                assert!(
                    numbers.len() >= 39 || was_set_aside,
                    "{about}: {} are left",
                    numbers.len()
                );
                whole += usize::from(numbers.len() == 40);
                aside += usize::from(was_set_aside);
                spool.append(100..=100, &[lone("100 after")]).await.unwrap();
                assert_eq!(bodies(&spool).await.len(), numbers.len() + 1, "{about}");
            }
        }
    }
    assert!(whole >= 6, "an undamaged end loses nothing: {whole}");
    assert!(aside >= 6, "a damaged file is kept aside: {aside}");
}

#[tokio::test]
async fn the_age_of_the_oldest_signal_follows_what_is_kept() {
    let folder = Folder::new();
    let spool = folder.open();
    assert_eq!(spool.oldest_at(), None);
    let at = |seconds| chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(seconds);
    for n in 1..=3 {
        let mut one = lone("x");
        one.signal.received_at = at(i64::try_from(n).unwrap());
        spool.append(n..=n, &[one]).await.unwrap();
    }
    assert_eq!(spool.oldest_at(), Some(at(1)));

    spool.forget(1).await.unwrap();
    assert_eq!(spool.oldest_at(), Some(at(2)));
    drop(spool);
    let spool = folder.open();
    assert_eq!(spool.oldest_at(), Some(at(2)), "the same after a restart");
    spool.forget(3).await.unwrap();
    assert_eq!(spool.oldest_at(), None);
}
