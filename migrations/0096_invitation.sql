-- Invitations of people to a project. Whoever opens the link while signed in becomes a member. A link works once and has an end.
--
-- The code of the last release does not know this table.

CREATE TABLE invitation (
    id         uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    -- Only the account of this address may accept, in lower case. NULL: whoever has the link.
    email      text,
    role       text NOT NULL,
    -- SHA-256 of the link's token; the token itself is never stored.
    digest     bytea NOT NULL,
    -- Who invited: an account, a key or the operator. An invitation ends with the right to invite. No foreign key: the id is of one of several tables.
    maker_kind text NOT NULL,
    maker_id   uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT invitation_digest_unique UNIQUE (digest),
    CONSTRAINT invitation_role CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    CONSTRAINT invitation_email CHECK (email = lower(email) AND length(email) <= 320),
    CONSTRAINT invitation_span CHECK (expires_at > created_at)
);
-- The list of a project.
CREATE INDEX invitation_project ON invitation (project_id, id);
-- The retention removes expired invitations.
CREATE INDEX invitation_expired ON invitation (expires_at);
