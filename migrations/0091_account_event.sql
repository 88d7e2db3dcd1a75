-- The trail of an account: what was done to it, when, and from where (ADR 046). An entry is written in the transaction of the change.
-- Entries of the audit trail belong to projects; sign-ins and passwords belong to none.
--
-- The code of the last release writes nothing here.

CREATE TABLE account_event (
    -- A UUID v7: the entries of an account sort by their time.
    id         uuid NOT NULL,
    account_id uuid NOT NULL REFERENCES account ON DELETE CASCADE,
    at         timestamptz NOT NULL,
    -- The server lists the acts (server/domain/src/people/account.rs): a new one needs no migration.
    action     text NOT NULL,
    address    text,
    device     text,
    CONSTRAINT account_event_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT account_event_bounds CHECK (length(action) <= 100 AND length(address) <= 50 AND length(device) <= 100)
);
CREATE TRIGGER account_event_stays BEFORE UPDATE ON account_event FOR EACH ROW EXECUTE FUNCTION refuse_change_of_audit();
