-- Sessions end when nobody uses them, and their owner can list and end them: last use with its address and device, and the time at which
-- somebody last proved to be the owner, by a password or a code.
--
-- The code of the last release writes none of these columns. The default keeps its sessions and those that exist; the time of a proof is then
-- the start of the session.

ALTER TABLE session
    ADD COLUMN seen_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN proved_at timestamptz,
    -- The client's address (a /64 of IPv6) and the family of its program, at the last use.
    ADD COLUMN address text,
    ADD COLUMN device text,
    ADD CONSTRAINT session_bounds CHECK (length(address) <= 50 AND length(device) <= 100) NOT VALID;
ALTER TABLE session VALIDATE CONSTRAINT session_bounds;
