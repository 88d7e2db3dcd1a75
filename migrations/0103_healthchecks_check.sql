-- What clients of the Healthchecks API set of a check and Deadbeat has no setting for: its description, and keywords for mail subjects
-- (docs/adr/053-the-healthchecks-api.md). The API gives them back as they were sent. A monitor without such settings has no row.
--
-- Old code neither reads nor writes the table. A deleted monitor takes its row with it.

CREATE TABLE healthchecks_check (
    monitor_id uuid NOT NULL,
    settings   jsonb NOT NULL,
    project_id uuid NOT NULL,
    CONSTRAINT healthchecks_check_pkey PRIMARY KEY (monitor_id, project_id),
    CONSTRAINT healthchecks_check_monitor_fkey FOREIGN KEY (monitor_id, project_id)
        REFERENCES monitor (id, project_id) ON DELETE CASCADE,
    CONSTRAINT healthchecks_check_size CHECK (octet_length(settings::text) <= 65536)
);
