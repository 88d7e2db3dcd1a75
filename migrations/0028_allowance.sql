-- What is counted against abuse: where accounts are known, and what projects have used of their daily allowances.
--
-- Old code neither reads nor writes them: while it runs beside new code, what it creates is not counted.

-- From where an account has signed in: wrong passwords from elsewhere do not slow it down there.
CREATE TABLE known_address (
    account_id uuid NOT NULL REFERENCES account ON DELETE CASCADE,
    -- An address of IPv4, or the first address of a /64 of IPv6.
    address    text NOT NULL,
    seen_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, address)
);

-- One row for each project and each thing that is counted.
CREATE TABLE allowance (
    project_id uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    what       text NOT NULL,
    -- When the current window of a day began, and how much was used since.
    began_at   timestamptz NOT NULL,
    used       bigint NOT NULL,
    PRIMARY KEY (project_id, what),
    CONSTRAINT allowance_what CHECK (what IN ('created_monitors', 'api_keys')),
    CONSTRAINT allowance_used CHECK (used >= 0)
);
