-- Snoozes and mutes: a person or a deploy script keeps alerts back (docs/adr/035-what-holds-an-alert.md).
--
-- Old code ignores them: what it tells goes out at once.

CREATE TABLE snooze (
    id              uuid NOT NULL,
    -- What it is about. Neither: the whole project.
    monitor_id      uuid,
    tag             text,
    -- NULL: a mute, which a person ends.
    ends_at         timestamptz,
    created_at      timestamptz NOT NULL,
    -- Who: account, key, operator or system, and the id of an account or key.
    created_by_kind text NOT NULL,
    created_by_id   uuid,
    project_id      uuid NOT NULL,
    CONSTRAINT snooze_pkey PRIMARY KEY (id, project_id),
    CONSTRAINT snooze_project_fkey FOREIGN KEY (project_id) REFERENCES project ON DELETE CASCADE,
    CONSTRAINT snooze_monitor_fkey FOREIGN KEY (monitor_id, project_id) REFERENCES monitor (id, project_id) ON DELETE CASCADE,
    CONSTRAINT snooze_one_target CHECK (num_nonnulls(monitor_id, tag) <= 1),
    CONSTRAINT snooze_tag_length CHECK (length(tag) BETWEEN 1 AND 100),
    CONSTRAINT snooze_creator CHECK ((created_by_kind IN ('account', 'key')) = (created_by_id IS NOT NULL))
);
-- A target has one snooze and one mute: a deploy script that snoozes cannot end a mute. Also finds those of a monitor.
CREATE UNIQUE INDEX snooze_of_monitor ON snooze (monitor_id, (ends_at IS NULL), project_id) WHERE monitor_id IS NOT NULL;
CREATE UNIQUE INDEX snooze_wide ON snooze (coalesce(tag, ''), (ends_at IS NULL), project_id) WHERE monitor_id IS NULL;
-- Those of the whole project and of tags, which every alert asks for: not those of its monitors.
CREATE INDEX snooze_wide_of_project ON snooze (project_id) WHERE monitor_id IS NULL;
-- Lists, newest first.
CREATE INDEX snooze_project ON snooze (project_id, id);
