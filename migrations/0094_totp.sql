-- The second factor: the secret that an account shares with an authenticator (RFC 6238), and codes for the day on which that is lost (ADR 047).

CREATE TABLE authenticator (
    account_id   uuid NOT NULL REFERENCES account ON DELETE CASCADE,
    -- The secret, sealed for this account, and the id of the key that opens it.
    sealed       text NOT NULL,
    key_id       text NOT NULL,
    -- Empty: the account was shown the secret, and has not proved that its authenticator knows it.
    confirmed_at timestamptz,
    -- The time step of the last accepted code. Codes of this step and of earlier ones are refused.
    last_step    bigint NOT NULL,
    CONSTRAINT authenticator_pkey PRIMARY KEY (account_id)
);
-- Sealing anew with another key.
CREATE INDEX authenticator_key ON authenticator (key_id, account_id);

CREATE TABLE recovery_code (
    account_id uuid NOT NULL REFERENCES account ON DELETE CASCADE,
    -- SHA-256 of the code. Using a code deletes its row.
    digest     bytea NOT NULL,
    CONSTRAINT recovery_code_pkey PRIMARY KEY (account_id, digest)
);
