//! Lists of tables, which say whose data a table holds. A new table must be in one of these lists.

use std::collections::BTreeSet;

/// Tables that hold a project's data. With several databases, their rows would be in the database of their project.
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
    "healthchecks_check",
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

/// Tables for permissions. They stay in one database, which knows the database of each project: a key or a session is read before its project is
/// known.
pub const OF_HOME: &[&str] = &[
    "account",
    "account_event",
    "account_link",
    "api_key",
    "authenticator",
    "invitation",
    "known_address",
    "member",
    "project",
    "recovery_code",
    "session",
    "sign_in_step",
];

/// Tables about processes and the whole deployment. A quota belongs to an address or an account as well as to a project.
pub const OF_ALL: &[&str] = &[
    "_sqlx_migrations",
    "blind_spell",
    "evaluator",
    "listener",
    "push_key",
    "quota",
    "sealing_key",
    "writer",
    "zone_data",
];

/// Returns the tables of projects, for look-ups by name.
pub fn of_projects() -> BTreeSet<&'static str> {
    OF_PROJECTS.iter().copied().collect()
}
