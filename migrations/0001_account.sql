-- Accounts, their sessions, projects, members and API keys: who may do what.
-- First migration: no older code sees it.

CREATE TABLE account (
    id            uuid PRIMARY KEY,
    -- Stored in lower case: two spellings of an address are one person.
    email         text NOT NULL,
    -- PHC string of argon2id.
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL,
    CONSTRAINT account_email_unique UNIQUE (email),
    CONSTRAINT account_email_lower CHECK (email = lower(email))
);

CREATE TABLE session (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account ON DELETE CASCADE,
    -- SHA-256 of the cookie's value; the value itself is never stored.
    digest     bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT session_digest_unique UNIQUE (digest)
);
-- Deleting an account's sessions.
CREATE INDEX session_account ON session (account_id);

CREATE TABLE project (
    id               uuid PRIMARY KEY,
    name             text NOT NULL,
    -- An incident that stays open is told again after so many seconds; NULL: never.
    reminder_seconds integer DEFAULT 86400,
    created_at       timestamptz NOT NULL,
    CONSTRAINT project_name_length CHECK (length(name) BETWEEN 1 AND 100),
    CONSTRAINT project_reminder CHECK (reminder_seconds IS NULL OR reminder_seconds >= 60)
);

CREATE TABLE member (
    project_id uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    account_id uuid NOT NULL REFERENCES account ON DELETE CASCADE,
    role       text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (project_id, account_id),
    CONSTRAINT member_role CHECK (role IN ('owner', 'manager', 'viewer'))
);
-- An account's projects.
CREATE INDEX member_account ON member (account_id);

CREATE TABLE api_key (
    id           uuid PRIMARY KEY,
    project_id   uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    name         text NOT NULL,
    -- ping: may signal and register what signals; read: may look; write: may manage.
    scope        text NOT NULL,
    -- The first characters, shown so that a person can tell keys apart.
    prefix       text NOT NULL,
    -- SHA-256 of the whole key (256 bits of entropy: no slow hash needed, ADR 010).
    digest       bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    CONSTRAINT api_key_digest_unique UNIQUE (digest),
    CONSTRAINT api_key_scope CHECK (scope IN ('ping', 'read', 'write')),
    CONSTRAINT api_key_name_length CHECK (length(name) BETWEEN 1 AND 100)
);
-- A project's keys.
CREATE INDEX api_key_project ON api_key (project_id);
