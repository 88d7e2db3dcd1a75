-- With which key the secrets of this database are sealed.
--
-- Two servers that start on an empty database may each have made a key of their own. Without an agreement, each would seal channels that the
-- other one cannot open. The first to seal writes its key's id here. A server that does not have this key seals nothing, and says so.
--
-- Old code does not know the table.

CREATE TABLE sealing_key (
    -- There is one row at most.
    is_only boolean PRIMARY KEY DEFAULT true,
    -- The public id of the key, never the key.
    key_id  text NOT NULL,
    since   timestamptz NOT NULL,
    CONSTRAINT sealing_key_is_only CHECK (is_only),
    CONSTRAINT sealing_key_key_id_form CHECK (key_id ~ '^[0-9a-f]{12}$')
);
