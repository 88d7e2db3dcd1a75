//! Statements that may leave a project out, each with its reason.

/// A part of a statement, with single spaces, and the tables whose project this part may leave out.
pub type Exception = (&'static str, &'static [&'static str]);

/// Statements by which the evaluator, the delivery loop or the retention takes the next rows of all projects. Each row then names its project.
pub const TAKE_OF_ALL: &[Exception] = &[
    (
        "(SELECT min(tell_at) FROM blind_notice WHERE tell_at IS NOT NULL) AS notice",
        &[
            "beat",
            "blind_notice",
            "escalation",
            "incident",
            "monitor",
            "worker",
        ],
    ),
    ("FROM beat WHERE check_after <= $1", &["beat"]),
    ("FROM worker WHERE check_after <= $1", &["worker"]),
    (
        "FROM monitor WHERE check_after <= $1 AND NOT EXISTS (SELECT FROM listener",
        &["monitor"],
    ),
    ("SELECT id, remind_at", &["incident"]),
    ("DELETE FROM audit_entry WHERE id = ANY", &["audit_entry"]),
    (
        "SELECT id, project_id FROM incident WHERE resolved_at IS NULL AND long_reminded_at IS NULL",
        &["incident"],
    ),
    (
        "WITH due AS MATERIALIZED ( SELECT project_id, spell_started_at FROM blind_notice",
        &["blind_notice"],
    ),
    (
        "SELECT project_id, app FROM queue WHERE status = 'down'",
        &["broker", "queue"],
    ),
    (
        "WHERE subject_kind = 'host' AND resolved_at IS NULL AND ($1::uuid IS NULL OR id > $1)",
        &["incident"],
    ),
    (
        "SELECT *, row_number() OVER (PARTITION BY project_id ORDER BY check_after) AS place FROM unbegun_run",
        &["unbegun_run"],
    ),
    (
        "FROM monitor WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE",
        &["monitor"],
    ),
    (
        "SELECT id, ping_id FROM monitor WHERE ($1::uuid IS NULL OR id > $1)",
        &["monitor"],
    ),
    (
        "SELECT min(next_attempt_at) FROM delivery WHERE status = 'pending'",
        &["delivery"],
    ),
    (
        "UPDATE monitor SET check_after = $1 WHERE id IN (SELECT id FROM monitor WHERE last_ping_at > $1",
        &["monitor"],
    ),
    ("UPDATE beat SET check_after = $1 WHERE id IN", &["beat"]),
    ("UPDATE worker SET check_after = $1 WHERE id IN", &["worker"]),
    (
        "UPDATE delivery SET next_attempt_at = $1 WHERE status = 'pending' AND created_at > $1",
        &["delivery"],
    ),
    ("SELECT project_id, id, ping_count - $2", &["monitor"]),
    (
        "SELECT project_id, monitor_id FROM purge ORDER BY monitor_id LIMIT 1",
        &["purge"],
    ),
    ("SELECT id, status FROM run WHERE id > $1 AND id < $2", &["run"]),
    (
        "SELECT ctid AS place, delivery_id, number, started_at",
        &["attempt"],
    ),
    (
        "FROM delivery WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3",
        &["delivery"],
    ),
    (
        "SELECT ctid AS place, incident_id, monitor_id",
        &["incident_member"],
    ),
    (
        "SELECT ctid AS place, incident_id, channel_id",
        &["message_handle"],
    ),
    (
        "FROM incident WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3",
        &["incident"],
    ),
    (
        "SELECT ctid AS place, subject_kind, subject_id, id, at",
        &["transition"],
    ),
    (
        "DELETE FROM worker WHERE (project_id, id) IN (SELECT project_id, id FROM worker WHERE status = 'paused'",
        &["worker"],
    ),
    ("DELETE FROM broker WHERE (project_id, id) IN", &["broker"]),
    ("DELETE FROM queue WHERE (project_id, id) IN", &["queue"]),
];

/// Statements that count rows of the whole deployment.
pub const FIGURES_OF_ALL: &[Exception] = &[
    (
        "AS oldest_check, outbox.pending AS",
        &["delivery", "incident", "monitor"],
    ),
    (
        "(SELECT max(swept_at) FROM evaluator) AS last_sweep_at",
        &["delivery", "monitor"],
    ),
    // The operator's command line shows what a channel would send, and gets only the channel's id.
    ("SELECT project_id FROM channel WHERE id = $1", &["channel"]),
    // Counts the channels for each key, and those without a key: one keyring opens the channels of all projects.
    ("SELECT sealed ->> 'key' AS key_id, count(*)", &["channel"]),
    (
        "FROM channel WHERE sealed IS NULL OR signing_secret IS NOT NULL",
        &["channel"],
    ),
];

/// Statements with a secret that names the row: a ping URL, or the link in a confirmation mail. The row names its project.
pub const NAMED_BY_SECRET: &[Exception] = &[
    (
        "WHERE ping_id = ANY($1) OR id = ANY($2) ORDER BY id FOR UPDATE",
        &["monitor"],
    ),
    (
        "SELECT id, ping_id FROM monitor WHERE ping_id = ANY($1) OR id = ANY($2)",
        &["monitor"],
    ),
    ("FROM channel WHERE id = $1 AND kind = 'email'", &["channel"]),
    (
        "INSERT INTO listener (id, stamped_at, spooled, awaited_until, aside)",
        &["monitor"],
    ),
];
