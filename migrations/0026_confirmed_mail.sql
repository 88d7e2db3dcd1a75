-- Mail goes only to addresses that confirmed, so that nobody can have Deadbeat write to strangers.
--
-- Channels that exist count as confirmed: their owners rely on them. Old code writes channels without `confirmed_at`: a mail channel that
-- old code adds during an upgrade waits for its confirmation, which its project asks for with POST /api/v1/channels/{id}/confirmation.

ALTER TABLE channel
    -- When the owner of the address agreed. NULL for kinds that need no confirmation, and for mail that waits for one.
    ADD COLUMN confirmed_at   timestamptz,
    -- Signs the link in the confirmation mail; never shown to anybody.
    ADD COLUMN confirm_secret text;

UPDATE channel SET confirmed_at = created_at WHERE kind = 'email';

-- Which addresses of a project are confirmed already.
CREATE INDEX channel_confirmed ON channel (project_id, lower(settings ->> 'to')) WHERE confirmed_at IS NOT NULL;
