-- Links in mails to people (ADR 046): to sign up, to set a new password, to take a new mail address, to undo that. A link works once: whoever
-- uses it deletes its row.
--
-- The code of the last release knows none of them.

CREATE TABLE account_link (
    -- SHA-256 of the secret in the link; no table has the secret itself.
    digest     bytea NOT NULL,
    -- 'sign_up', 'reset', 'new_mail' or 'undo_mail' (server/domain/src/people/account.rs).
    kind       text NOT NULL,
    -- Empty for a sign-up: there is no account yet.
    account_id uuid REFERENCES account ON DELETE CASCADE,
    -- The address that the link gives to the account: the one it was sent to.
    email      text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT account_link_pkey PRIMARY KEY (digest),
    CONSTRAINT account_link_bounds CHECK (length(kind) <= 20 AND length(email) <= 254)
);
-- Ending the links of an account.
CREATE INDEX account_link_account ON account_link (account_id) WHERE account_id IS NOT NULL;
-- Ending the links to sign up with an address.
CREATE INDEX account_link_email ON account_link (email);
-- Removing what has expired.
CREATE INDEX account_link_expires ON account_link (expires_at);
