-- Whoever unsubscribes from a mail channel takes the consent to mail back, for this address in this project. A new channel to the address
-- asks again, also where the address is a member's or another channel has it confirmed. A confirmation by link removes the row.
--
-- Old code does not know the table: a channel that it adds to such an address during an upgrade may count as confirmed.

CREATE TABLE mail_refusal (
    -- In lower case.
    address    text NOT NULL,
    project_id uuid NOT NULL,
    refused_at timestamptz NOT NULL,
    CONSTRAINT mail_refusal_pkey PRIMARY KEY (address, project_id),
    CONSTRAINT mail_refusal_project_id_fkey FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE,
    CONSTRAINT mail_refusal_address_lower CHECK (address = lower(address))
);
-- Deleting a project.
CREATE INDEX mail_refusal_project ON mail_refusal (project_id);
