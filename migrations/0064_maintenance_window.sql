-- Maintenance windows: planned times in which alerts wait (docs/adr/035-what-holds-an-alert.md).
--
-- Old code ignores them: what it tells goes out at once.

CREATE TABLE maintenance_window (
    id               uuid NOT NULL,
    name             text NOT NULL,
    -- Once: from and until.
    starts_at        timestamptz,
    ends_at          timestamptz,
    -- Again and again: when it begins, and how long it lasts.
    schedule         jsonb,
    duration_seconds integer,
    -- Which monitors it is about. Both empty: the whole project. The ids of deleted monitors may stay.
    monitors         uuid[] NOT NULL,
    tags             text[] NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    created_by_kind  text NOT NULL,
    created_by_id    uuid,
    project_id       uuid NOT NULL,
    CONSTRAINT maintenance_window_pkey PRIMARY KEY (id, project_id),
    CONSTRAINT maintenance_window_project_fkey FOREIGN KEY (project_id) REFERENCES project ON DELETE CASCADE,
    CONSTRAINT maintenance_window_name_length CHECK (length(name) BETWEEN 1 AND 100),
    CONSTRAINT maintenance_window_times CHECK (
        (starts_at IS NOT NULL AND ends_at IS NOT NULL AND ends_at > starts_at AND schedule IS NULL AND duration_seconds IS NULL)
        OR (starts_at IS NULL AND ends_at IS NULL AND schedule IS NOT NULL AND duration_seconds IS NOT NULL AND duration_seconds > 0)
    ),
    CONSTRAINT maintenance_window_creator CHECK ((created_by_kind IN ('account', 'key')) = (created_by_id IS NOT NULL))
);
-- A project's windows: for lists, and for every alert.
CREATE INDEX maintenance_window_project ON maintenance_window (project_id, id);
