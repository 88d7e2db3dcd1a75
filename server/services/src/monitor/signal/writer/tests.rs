//! A spool file that cannot be read when its writer starts.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::PingId;
use deadbeat_domain::monitor::ping::{PingKind, Signal, SignalDetail, Source};
use deadbeat_store::PoolSettings;

use super::*;
use crate::monitor::signal::ingest::{Ingest, IngestError};

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }
}

pub(super) fn signal() -> Incoming {
    Incoming {
        address: Address::Ping(PingId::generate()),
        signal: Signal {
            kind: PingKind::Success,
            received_at: DateTime::UNIX_EPOCH,
            occurred_at: DateTime::UNIX_EPOCH,
            run_id: None,
            exit_code: None,
            duration: None,
            source: Source::Event,
            detail: SignalDetail::default(),
            is_replayed: false,
        },
        method: None,
        remote_addr: None,
        user_agent: None,
        body: Vec::new(),
    }
}

#[tokio::test]
async fn a_file_that_fails_at_the_start_is_used_once_it_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (folder.path().join("spool"), folder.path().join("elsewhere"));
    let spool = Spool::open(&path, 1_000_000).unwrap();
    spool.append(1..=9, &[signal()]).await.unwrap();
    spool.close();
    std::fs::rename(&path, &elsewhere).unwrap();
    // Opening a folder fails, and says nothing about the file. Replacing a link takes one step, so the writer never finds the file missing.
    std::os::unix::fs::symlink(folder.path(), &path).unwrap();
    let store = Store::connect(&PoolSettings {
        url: "postgres://nobody@127.0.0.1:1/nothing".to_owned(),
        size: 1,
        wait: Duration::from_millis(200),
        answer: Duration::from_secs(30),
        usual: None,
    })
    .unwrap();
    let clock: Arc<dyn Clock> = Arc::new(NoClock);
    let site = Site {
        url: "https://deadbeat.test".to_owned(),
    };
    let spools = vec![Some(spool.clone())];
    let (ingest, writers) = Ingest::new(
        &store,
        &clock,
        &site,
        &Arc::default(),
        Registry::default(),
        spools,
    );
    let stop = CancellationToken::new();
    let running = tokio::spawn(writers.run(stop.clone()));

    assert_eq!(ingest.accept(signal()).await, Err(IngestError::Unavailable));
    std::fs::rename(&elsewhere, &path).unwrap();
    let taken = tokio::time::timeout(Duration::from_secs(20), async {
        while ingest.accept(signal()).await.is_err() {}
    });

    taken.await.expect("the spool takes signals again");
    assert_eq!(spool.signals(), 2);
    assert_eq!(spool.last_position().await.unwrap(), Some(10));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_file_that_fails_does_not_keep_the_writer_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let spool = Spool::open(&path, 1_000_000).unwrap();
    spool.append(1..=1, &[signal()]).await.unwrap();
    spool.close();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let store = Store::connect(&PoolSettings {
        url: "postgres://nobody@127.0.0.1:1/nothing".to_owned(),
        size: 1,
        wait: Duration::from_millis(200),
        answer: Duration::from_secs(30),
        usual: None,
    })
    .unwrap();
    let clock: Arc<dyn Clock> = Arc::new(NoClock);
    let site = Site {
        url: "https://deadbeat.test".to_owned(),
    };
    let spools = vec![Some(spool)];
    let (ingest, writers) = Ingest::new(
        &store,
        &clock,
        &site,
        &Arc::default(),
        Registry::default(),
        spools,
    );
    let stop = CancellationToken::new();
    let running = tokio::spawn(writers.run(stop.clone()));

    stop.cancel();

    let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
    ended.expect("it ends").unwrap();
    assert_eq!(ingest.accept(signal()).await, Err(IngestError::Unavailable));
}
