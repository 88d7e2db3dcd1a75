-- When we could not listen. Each process that takes signals in says each second that it does; the one that finds that nobody did for a
-- while writes a spell, and deadlines that fell into it are moved by the rules (domain/blind_spell.rs).
--
-- Old code neither stamps nor looks: while old and new processes run side by side, the new ones' stamps are enough.

CREATE TABLE listener (
    -- A process, made anew at each start.
    id         uuid PRIMARY KEY,
    stamped_at timestamptz NOT NULL,
    -- Signals in its spool that are not in the database yet: nobody is judged before they are.
    spooled    bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE blind_spell (
    id         uuid PRIMARY KEY,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL,
    CONSTRAINT blind_spell_lasts CHECK (ended_at > started_at)
);
-- The evaluator's question: which spells may still excuse somebody? And lists, newest first.
CREATE INDEX blind_spell_ended ON blind_spell (ended_at);
