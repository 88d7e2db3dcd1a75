//! Which tables hold a project's data. A new table belongs to one of these lists.

use std::collections::BTreeSet;

/// Tables that hold a project's data: their rows would lie with their project on one of several databases.
pub const OF_PROJECTS: &[&str] = &[
    "attempt",
    "baseline",
    "audit_entry",
    "beat",
    "blind_notice",
    "broker",
    "change",
    "change_counter",
    "channel",
    "delivery",
    "escalation",
    "escalation_policy",
    "host_part",
    "incident",
    "incident_member",
    "mail_refusal",
    "maintenance_window",
    "message_handle",
    "monitor",
    "monitor_channel",
    "open_trace",
    "ping",
    "ping_body",
    "purge",
    "queue",
    "rotation",
    "run",
    "snooze",
    "trace",
    "transition",
    "unbegun_run",
    "worker",
];

/// Tables that say who may do what. They stay in one database, which knows where each project lies: a key or a session is looked for there
/// before its project is known.
pub const OF_HOME: &[&str] = &[
    "account",
    "api_key",
    "known_address",
    "member",
    "project",
    "session",
];

/// Tables about processes and the whole deployment. A quota belongs to an address or an account as well as to a project.
pub const OF_ALL: &[&str] = &[
    "_sqlx_migrations",
    "blind_spell",
    "evaluator",
    "listener",
    "quota",
    "sealing_key",
    "writer",
    "zone_data",
];

/// The tables of projects, to look a name up.
pub fn of_projects() -> BTreeSet<&'static str> {
    OF_PROJECTS.iter().copied().collect()
}
