-- A session remembers which of its account's projects the pages showed last, so that an address without a project shows this one again.
--
-- Old sessions remember nothing. The code of the last release does not read the column.

ALTER TABLE session ADD COLUMN project_id uuid REFERENCES project ON DELETE SET NULL;
-- Deleting a project.
CREATE INDEX session_project ON session (project_id) WHERE project_id IS NOT NULL;
