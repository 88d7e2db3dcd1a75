//! Every command that an incident can show, with names that an attacker would choose, read by real shells.

use std::process::Stdio;

use chrono::DateTime;
use deadbeat_domain::celery::beat::incarnation::{EndReport, Incarnation};
use deadbeat_domain::celery::condition::Condition;
use deadbeat_domain::celery::queue::flow::Flow;
use deadbeat_domain::celery::reach::Reach;
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::celery::worker::stranger::Stranger;
use deadbeat_domain::ids::{BeatId, BrokerId, MonitorId, PingId, ProjectId, QueueId, RunKey, WorkerId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::run::{Run, RunDetail, RunStatus};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::{Expectation, MonitorState};
use deadbeat_domain::schedule::Schedule;
use deadbeat_domain::text::is_plain;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::beat::lineage::Listed;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::trace::stage::RunProgress;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::monitor::Monitor;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::celery::beat::at_once::AtOnce;
use crate::celery::beat::emptied::Emptied;
use crate::celery::beat::flood::Flood;
use crate::incident::changed::Background;

/// The names from outside that may stand in a command.
#[derive(Debug, Clone)]
struct Names {
    app: String,
    worker: String,
    queue: String,
    task: String,
    id: String,
    host: String,
}

/// Names that need no quotes. None is a part of another one, or of our own words.
fn harmless() -> Names {
    let name = |text: &str| text.to_owned();
    Names {
        app: name("AAPPA"),
        worker: name("WWORKERW"),
        queue: name("QQUEUEQ"),
        task: name("TTASKT"),
        id: name("IIDI"),
        host: name("HHOSTH"),
    }
}

impl Names {
    /// Replaces harmless names in a command's word by these names.
    fn put_into(&self, word: &str) -> String {
        let harmless = harmless();
        let places = [
            (&harmless.app, &self.app),
            (&harmless.worker, &self.worker),
            (&harmless.queue, &self.queue),
            (&harmless.task, &self.task),
            (&harmless.id, &self.id),
        ];
        // In one pass: a name may contain the place of another one.
        let place = places.iter().find_map(|(place, name)| {
            let (before, after) = word.split_once(place.as_str())?;
            Some([before, name, after].concat())
        });
        place.unwrap_or_else(|| word.to_owned())
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn switch() -> Switch {
    Switch {
        status: Status::Up,
        period_seconds: 15.0,
        grace_seconds: 60.0,
        last_seen_at: Some(at(0)),
        deadline_at: None,
        trouble: None,
        since: Some(at(0)),
    }
}

fn run_of(names: &Names) -> Run {
    Run {
        key: RunKey::generate(),
        run_id: None,
        status: RunStatus::Overrun,
        started_at: Some(at(0)),
        finished_at: None,
        deadline_at: None,
        duration: None,
        exit_code: None,
        detail: RunDetail {
            task_id: Some(names.id.clone()),
            worker: Some(names.worker.clone()),
            ..RunDetail::default()
        },
        attempts: 2,
        contest: None,
        events: Vec::new(),
        orphan: None,
        ended_at: None,
    }
}

fn incarnation(names: &Names, pid: Option<i64>) -> Incarnation {
    Incarnation {
        boot: uuid::Uuid::from_u128(1),
        host: Some(names.host.clone()),
        pid,
        started_at: None,
        schedule: None,
        lineage: Some(0),
        shares: true,
        sync: None,
        since: at(0),
        seen_at: at(300),
        period_seconds: 15.0,
        grace_seconds: 60.0,
        says_goodbye: true,
        goodbye: Some(EndReport::Failed(Some(names.task.clone()))),
    }
}

/// Returns every explanation, of subjects with these names.
fn explanations(names: &Names) -> Vec<Explanation> {
    let project_id = ProjectId::generate();
    let beat = Beat {
        id: BeatId::generate(),
        project_id,
        name: names.app.clone(),
        host: Some(names.host.clone()),
        project_word: None,
        created_at: at(0),
        hung_at: Some(at(0)),
        sent_at: Some(at(0)),
        send_failed: Some((at(0), names.host.clone())),
        lost_events: Some((at(0), 3)),
        state: switch(),
    };
    let worker = Worker {
        id: WorkerId::generate(),
        project_id,
        app: "shop".to_owned(),
        name: names.worker.clone(),
        snapshot: json!({
            "project": names.app, "host": names.host, "pid": 4_711, "reserved": 3, "longest": {"task": names.task},
            "loop_lag_seconds": 12,
        }),
        queues: vec![names.queue.clone(), "celery".to_owned()],
        progress_at: at(0),
        created_at: at(0),
        incarnations: Vec::new(),
        state: switch(),
    };
    let queue = Queue {
        id: QueueId::generate(),
        project_id,
        app: names.app.clone(),
        name: names.queue.clone(),
        depth: 3,
        oldest_seconds: Some(99.0),
        oldest_is_a_guess: false,
        oldest_task: Some(names.task.clone()),
        unacked: None,
        consumers: None,
        waiting_since: None,
        taken: None,
        flow: Flow::default(),
        seen_at: at(0),
        created_at: at(0),
        state: Condition::FRESH,
    };
    let broker = |transport: &str| Broker {
        id: BrokerId::generate(),
        project_id,
        app: names.app.clone(),
        sampler: None,
        sampler_until: None,
        sample: Some(json!({"transport": transport, "worker": names.worker, "error": names.host})),
        sampled_at: Some(at(0)),
        reach: Reach::default(),
        state: Condition::FRESH,
    };
    let mut state = MonitorState::fresh(
        Expectation {
            schedule: Schedule::from_json(&json!({"kind": "interval", "seconds": 60})).unwrap(),
            delay_seconds: 0.0,
            grace_seconds: 10.0,
            longest_run_seconds: None,
        },
        true,
        at(0),
    );
    state.runs.push(run_of(names));
    state.next_due_at = Some(at(60));
    let monitor = Monitor {
        id: MonitorId::generate(),
        project_id,
        ping_id: PingId::generate(),
        slug: "monitor".to_owned(),
        name: names.task.clone(),
        tags: Vec::new(),
        all_channels: true,
        severity: None,
        beat_id: Some(beat.id),
        entry: None,
        registered: Some(json!({"task": names.task})),
        retired_at: None,
        created_at: at(0),
        updated_at: at(0),
        open_runs: 1,
        state,
    };
    let stage = RunProgress {
        monitor_id: monitor.id,
        run_id: uuid::Uuid::from_u128(1),
        task_id: Some(names.id.clone()),
        queue: Some(names.queue.clone()),
        published_at: Some(at(60)),
        received_at: Some(at(61)),
        started_at: None,
        finished_at: None,
        attempts: 0,
        worker: Some(names.worker.clone()),
        heard_at: at(61),
        is_expired: false,
    };
    let (workers, queues) = (std::slice::from_ref(&worker), std::slice::from_ref(&queue));
    let flood = Flood {
        entry: names.task.clone(),
        count: 900,
        queue: Some(names.queue.clone()),
    };
    let redis = broker("redis");
    let crashes = [incarnation(names, Some(4242)), incarnation(names, None)];
    let known = Background {
        beat: Some(&beat),
        crashes: &crashes,
        stage: Some(&stage),
        broker: Some(&redis),
        queues,
        workers,
    };
    let of_a_job = Background::default();
    let emptied = Emptied {
        at: at(0),
        names: vec![names.task.clone()],
        count: 12,
    };
    let stranger = Stranger {
        worker: names.worker.clone(),
        queues: vec![names.queue.clone()],
        since: at(0),
        seen_at: at(60),
    };
    let at_once = AtOnce {
        processes: vec![incarnation(names, Some(4242)), incarnation(names, None)],
        listed: vec![Listed {
            by: 1,
            count: 12,
            names: vec![names.task.clone()],
        }],
    };
    let mut all = vec![
        of_flood(&beat, &flood),
        of_emptied(&beat, &emptied),
        of_strangers(&queue, std::slice::from_ref(&stranger), at(60)),
        of_several(&beat, Cause::BeatDuplicate, &at_once),
        of_several(&beat, Cause::AppNameShared, &at_once),
        of_several(&beat, Cause::BeatDown, &at_once),
        of_crash_loop(&beat, &crashes),
        of_crash_loop(&beat, &[]),
    ];
    for cause in Cause::ALL {
        all.push(of_beat(&beat, cause));
        all.push(of_worker(&worker, cause));
        all.push(of_queue(&queue, workers, cause));
        all.push(of_queue(&queue, &[], cause));
        for background in [&known, &of_a_job] {
            all.push(of_monitor(&monitor, background, None, cause, at(99)));
        }
    }
    all.extend(["redis", "amqp", "sqs"].map(|transport| of_broker(&broker(transport), at(99))));
    all.into_iter().map(Explanation::visible).collect()
}

/// The arguments that a line passes to its programs when a real shell reads it. The programs are functions that print
/// their arguments.
fn passed_on(shell: &str, lines: &[&str]) -> Vec<Vec<String>> {
    let programs = [
        "celery",
        "kill",
        "sleep",
        "journalctl",
        "pgrep",
        "pkill",
        "ps",
        "head",
        "timedatectl",
        "chronyc",
        "redis_cli",
        "py_spy",
        "rabbitmq_diagnostics",
    ];
    let mut script = String::new();
    for program in programs {
        script.push_str(&format!(
            "{program}() {{ printf '%s\\037' {program} \"$@\"; printf '\\1'; }}\n"
        ));
    }
    for line in lines {
        // Not every shell allows a hyphen in a function's name.
        let line = ["redis-cli", "py-spy", "rabbitmq-diagnostics"]
            .iter()
            .find_map(|name| Some(format!("{}{}", name.replace('-', "_"), line.strip_prefix(name)?)))
            .unwrap_or_else(|| (*line).to_owned());
        script.push_str(&format!("{line}\nprintf '\\2'\n"));
    }
    let output = std::process::Command::new(shell)
        .args(["-c", &script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\u{2}')
        .map(|of_line| {
            of_line
                .replace('\u{1}', "")
                .split_terminator('\u{1f}')
                .map(str::to_owned)
                .collect()
        })
        .collect()
}

fn repairs(names: &Names) -> Vec<Repair> {
    explanations(names)
        .into_iter()
        .flat_map(|explanation| explanation.repair)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn hostile_names_in_every_command_there_is_stay_single_arguments(
        app in hostile(), worker in hostile(), queue in hostile(), task in hostile(), id in hostile(), host in hostile(),
    ) {
        let names = Names { app, worker, queue, task, id, host };
        let (expected, found) = (repairs(&harmless()), repairs(&names));
        prop_assert_eq!(expected.len(), found.len());
        let mut lines = Vec::new();
        for (harmless, hostile) in expected.iter().zip(&found) {
            prop_assert!(is_plain(&hostile.text), "{:?}", hostile.text);
            match (&harmless.command, &hostile.command) {
                (Some(harmless), Some(hostile)) => {
                    prop_assert!(is_plain(hostile.as_str()));
                    lines.push((harmless.as_str(), hostile.as_str()));
                }
                (Some(_), None) => prop_assert!(hostile.text.contains("No command is shown: "), "{}", hostile.text),
                (None, None) => {}
                (None, Some(command)) => prop_assert!(false, "{command}"),
            }
        }
        lines.sort_unstable();
        lines.dedup();
        let (harmless, hostile): (Vec<&str>, Vec<&str>) = lines.into_iter().unzip();
        for shell in ["sh", "bash"] {
            let expected: Vec<Vec<String>> = passed_on(shell, &harmless)
                .into_iter()
                .map(|words| words.iter().map(|word| names.put_into(word)).collect())
                .collect();
            prop_assert_eq!(passed_on(shell, &hostile), expected);
        }
    }
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[a-z'\"\\\\$`!;&|<>(){}*?~#= %-]{1,6}",
        2 => Just("'; touch pwned; '".to_owned()),
        2 => Just("$(touch pwned)".to_owned()),
        1 => "[日é🚀,]",
    ];
    let pieces = proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat());
    prop_oneof![
        9 => pieces.clone(),
        1 => (pieces, "[\\x01-\\x1f\\x7f\\u{202e}\\u{200b}]").prop_map(|(name, fault)| format!("{name}{fault}")),
    ]
}

#[test]
fn a_pid_that_means_many_processes_is_no_command() {
    for pid in [-1, 0, 1] {
        let first = &ghost_with_pid(pid).repair[0];
        assert_eq!(first.command, None);
        assert!(
            first.text.contains("is not the number of a single process"),
            "{}",
            first.text
        );
    }
    assert_eq!(
        ghost_with_pid(42).repair[0].command.as_ref().unwrap().as_str(),
        "kill -TERM 42; sleep 10; kill -KILL 42"
    );
}

fn ghost_with_pid(pid: i64) -> Explanation {
    let worker = Worker {
        id: WorkerId::generate(),
        project_id: ProjectId::generate(),
        app: "shop".to_owned(),
        name: "celery@w1".to_owned(),
        snapshot: json!({"pid": pid}),
        queues: Vec::new(),
        progress_at: at(0),
        created_at: at(0),
        incarnations: Vec::new(),
        state: switch(),
    };
    of_worker(&worker, Cause::GhostWorker)
}
