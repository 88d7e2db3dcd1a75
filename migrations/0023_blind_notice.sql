-- After a long blind spell (a restored backup) nobody can tell whether what was due in it came: each project is told so once a spell, with
-- the number of its monitors. Before, all of them were called down one grace after the spell.
--
-- Old code does not know the table, and judges as it did.

CREATE TABLE blind_notice (
    project_id       uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    spell_started_at timestamptz NOT NULL,
    spell_ended_at   timestamptz NOT NULL,
    -- Monitors whose slot or run could not be judged.
    monitors         bigint NOT NULL,
    -- When it is told: a little later, when all of them are counted. NULL: it was told.
    tell_at          timestamptz,
    PRIMARY KEY (project_id, spell_started_at)
);
-- The evaluator's question: is any due?
CREATE INDEX blind_notice_tell ON blind_notice (tell_at) WHERE tell_at IS NOT NULL;
