-- A sign-in between its steps: somebody asked for a code by mail, or gave the right password and must add a code of an authenticator. A
-- secret in the browser's cookie names the row, so a code works only in the browser that asked.
--
-- The code of the last release signs in with the password alone. An account must not switch on its second factor before every process runs
-- the new release.

CREATE TABLE sign_in_step (
    -- SHA-256 of the secret in the cookie.
    digest      bytea NOT NULL,
    -- 'mailed_code' or 'second_factor'.
    kind        text NOT NULL,
    -- Empty: no account has this mail address. The row exists all the same, so that the answers do not differ.
    account_id  uuid REFERENCES account ON DELETE CASCADE,
    -- SHA-256 of the cookie's secret and the code: a copy of this table is not enough to find a code of 8 digits.
    code_digest bytea,
    tries_left  smallint NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT sign_in_step_pkey PRIMARY KEY (digest),
    CONSTRAINT sign_in_step_kind CHECK (kind IN ('mailed_code', 'second_factor')),
    CONSTRAINT sign_in_step_tries CHECK (tries_left BETWEEN 0 AND 10)
);
-- Ending the steps of an account.
CREATE INDEX sign_in_step_account ON sign_in_step (account_id) WHERE account_id IS NOT NULL;
-- Removing what has expired.
CREATE INDEX sign_in_step_expires ON sign_in_step (expires_at);
