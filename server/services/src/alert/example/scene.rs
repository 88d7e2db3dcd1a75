//! The subject of the example for each cause: it has that fault.

use chrono::TimeDelta;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Subject, SubjectKind};
use deadbeat_domain::monitor::run::Outcome;
use deadbeat_store::celery::beat::lineage::Listed;
use deadbeat_store::celery::trace::stage::RunProgress;

use super::shop;
use crate::celery::beat::at_once::AtOnce;
use crate::celery::beat::emptied::Emptied;
use crate::celery::beat::flood::Flood;
use crate::incident::changed::{Background, Changed, Named};

/// Passes a subject with this fault to `show`.
pub(super) fn on_scene<T>(cause: Cause, show: impl FnOnce(Changed<'_>) -> T) -> T {
    match cause {
        Cause::Missed => show(Changed::Monitor(&shop::job(), &Background::default())),
        Cause::Unknown
        | Cause::Overrun
        | Cause::DuplicateRun
        | Cause::RedeliveryLoop
        | Cause::ScheduleReset
        | Cause::LostInBroker => of_monitor(show),
        Cause::Failed => signalled(None, show),
        Cause::RetriesExhausted => signalled(Some(Outcome::RetriesExhausted), show),
        Cause::Revoked => signalled(Some(Outcome::Revoked), show),
        Cause::Rejected => signalled(Some(Outcome::Rejected), show),
        Cause::Expired => signalled(Some(Outcome::Expired), show),
        Cause::TimeLimit => signalled(Some(Outcome::TimeLimit), show),
        Cause::TooFast => signalled(Some(Outcome::Success), show),
        Cause::WorkerKilled => signalled(Some(Outcome::Lost), show),
        Cause::WorkerLost => show(Changed::Worker(&shop::silent_worker())),
        Cause::GhostWorker | Cause::ClockSkew => show(Changed::Worker(&shop::worker(1))),
        Cause::PrefetchStarvation | Cause::RateLimited | Cause::HostOverloaded => of_worker(show),
        Cause::BeatDown | Cause::BeatStalled => show(Changed::Beat(&shop::beat())),
        Cause::BeatCrashLoop => {
            let crashes =
                [(0, 1_800), (1, 1_200), (2, 600)].map(|(number, ago)| shop::incarnation(number, ago));
            show(Changed::Crashing(&shop::beat(), &crashes))
        }
        Cause::BeatStorm => {
            let flood = Flood {
                entry: "nightly-report".to_owned(),
                count: 900,
                queue: Some("reports".to_owned()),
            };
            show(Changed::Flooding(&shop::beat(), &flood))
        }
        Cause::ScheduleEmptied => {
            let emptied = Emptied {
                at: shop::NOW,
                names: vec!["nightly-report".to_owned(), "import-orders".to_owned()],
                count: 12,
            };
            show(Changed::Emptied(&shop::beat(), &emptied))
        }
        Cause::BeatDuplicate | Cause::AppNameShared => {
            let at_once = AtOnce {
                processes: vec![shop::incarnation(0, 600), shop::incarnation(1, 300)],
                listed: vec![Listed {
                    by: 1,
                    count: 12,
                    names: vec!["nightly-report".to_owned()],
                }],
            };
            show(Changed::Several(&shop::beat(), &at_once))
        }
        Cause::WorkerWithoutSdk => show(Changed::Queue(&shop::queue(), &[], &[shop::stranger()])),
        Cause::QueueUnconsumed => {
            let mut worker = shop::worker(1);
            worker.queues = vec!["celery".to_owned()];
            show(Changed::Queue(&shop::queue(), &[worker], &[]))
        }
        Cause::QueueSlaBreach => show(Changed::Queue(&shop::queue(), &[shop::worker(1)], &[])),
        Cause::BrokerDown => show(Changed::Broker(&shop::broker())),
        Cause::ResultBackendDown => show(Changed::ResultBackend(&shop::backend())),
        Cause::HostLost => show(Changed::Host(&shop::host())),
    }
}

/// An entry of Beat whose run did not begin, or did not end.
fn of_monitor<T>(show: impl FnOnce(Changed<'_>) -> T) -> T {
    let (beat, stage, broker) = (shop::beat(), shop::stage(), shop::broker());
    let (queues, workers) = ([shop::queue()], [shop::worker(1), shop::worker(2)]);
    let background = Background {
        beat: Some(&beat),
        crashes: &[],
        stage: Some(&stage),
        broker: Some(&broker),
        queues: &queues,
        workers: &workers,
    };
    show(Changed::Monitor(&shop::monitor(), &background))
}

/// A worker that an entry's verdict names.
fn of_worker<T>(show: impl FnOnce(Changed<'_>) -> T) -> T {
    let (beat, broker, monitor) = (shop::beat(), shop::broker(), shop::monitor());
    let stage = RunProgress {
        received_at: Some(shop::NOW - TimeDelta::seconds(899)),
        ..shop::stage()
    };
    let (queues, workers) = ([shop::queue()], [shop::worker(1), shop::worker(2)]);
    let named = Named {
        subject: Subject {
            kind: SubjectKind::Worker,
            id: workers[0].id.0,
            name: workers[0].name.clone(),
        },
        monitor: &monitor,
        background: Background {
            beat: Some(&beat),
            crashes: &[],
            stage: Some(&stage),
            broker: Some(&broker),
            queues: &queues,
            workers: &workers,
        },
    };
    show(Changed::Named(&named))
}

fn signalled<T>(outcome: Option<Outcome>, show: impl FnOnce(Changed<'_>) -> T) -> T {
    show(Changed::Signalled(
        &shop::monitor(),
        &shop::signal(outcome),
        Some(&shop::beat()),
    ))
}
