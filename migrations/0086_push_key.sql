-- The key with which this deployment identifies itself to push services (VAPID, RFC 8292), for channels of the kind web_push.
--
-- A browser's subscription names the public key with which it was made, and its push service refuses messages that another key signs. So the servers of
-- a database use one key. The first request for it makes it. The private key is sealed like the secrets of channels
-- (docs/adr/050-web-push-with-ring.md).
--
-- Old code does not know the table. Its `deadbeat secrets rotate` leaves the row sealed with the former key: run the rotation of new code again before
-- you remove that key.

CREATE TABLE push_key (
    -- There is one row at most.
    is_only    boolean PRIMARY KEY DEFAULT true,
    -- The point on P-256 in base64url, as browsers take it: not secret.
    public_key text NOT NULL,
    -- The id of the key that seals the private key, never that key.
    key_id     text NOT NULL,
    -- The ciphertext of the private key.
    sealed     text NOT NULL,
    since      timestamptz NOT NULL,
    CONSTRAINT push_key_is_only CHECK (is_only),
    CONSTRAINT push_key_public_key_form CHECK (public_key ~ '^[A-Za-z0-9_-]{87}$'),
    CONSTRAINT push_key_key_id_form CHECK (key_id ~ '^[0-9a-f]{12}$')
);
