-- Revoked keys go after a while: a key that issues and revokes keys all day must not fill the table. The retention looks for them by this index.
--
-- Old code sees no difference.

CREATE INDEX api_key_revoked ON api_key (revoked_at) WHERE revoked_at IS NOT NULL;
