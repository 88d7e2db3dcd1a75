-- The secrets of channels are sealed (docs/adr/033-secrets-of-channels-are-sealed.md).
--
-- `sealed` holds one ciphertext for each secret of the channel: the fields of the settings that the kind declares secret, the signing secret,
-- and the secret of the confirmation link. `settings` keeps a mask such as {"url": {"shown": "https://hooks.example.org/…Xy9z"}} for each of
-- them. SQL has no key, so this file seals nothing: the server seals the rows that exist after its start, in batches, and goes on to seal
-- what old code writes meanwhile (server/services/src/alert/sealing).
--
-- Old code sees meanwhile:
-- * Webhooks whose settings it cannot read. It sends nothing to them. It leaves each delivery until the claim's lease of 60 s ends; then
--   new code may take the delivery. So alerts to webhooks can be some minutes late until the last old process with the role `delivery` ends.
--   Its API shows the mask of the URL as an object.
-- * It cannot change the settings of a sealed webhook: `channel_stays_sealed` refuses that, and the request is answered 500. Without the
--   constraint, old code would keep the new URL, lose the signing secret, and switch the channel off at the next alert.
-- * Mail channels without the secret of their link. A confirmation mail that old code sends has a link that confirms nothing; when it is
--   asked to send the mail again, it writes a new secret, which new code uses and seals.
-- * Channels that it adds itself. They hold their secrets as before, until new code seals them, within a minute.

ALTER TABLE channel
    -- {"key": "<id of the key>", "values": {"settings.url": "…", "signing_secret": "…"}}; the key is null when the channel has no secret. NULL:
    -- nobody has sealed the channel yet.
    ADD COLUMN sealed jsonb,
    DROP CONSTRAINT channel_webhook_signs,
    ADD CONSTRAINT channel_webhook_signs
        CHECK (kind <> 'webhook' OR signing_secret IS NOT NULL OR coalesce(sealed -> 'values' ? 'signing_secret', false)),
    ADD CONSTRAINT channel_stays_sealed
        CHECK (kind <> 'webhook' OR signing_secret IS NOT NULL OR coalesce(jsonb_typeof(settings -> 'url') = 'object', false));

-- Channels with secrets in clear, which the server seals project by project.
CREATE INDEX channel_unsealed ON channel (project_id, id) WHERE sealed IS NULL OR signing_secret IS NOT NULL OR confirm_secret IS NOT NULL;
-- Which keys seal channels, and the channels of one key.
CREATE INDEX channel_sealing_key ON channel ((sealed ->> 'key'), project_id, id) WHERE sealed ->> 'key' IS NOT NULL;
