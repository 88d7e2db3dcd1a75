-- Limits of an API key: an end, the networks that may use it, and the slugs or tags about which a ping key reports. A rotation replaces a key by a
-- new one and ends the old one (ADR 048).
--
-- Old keys get no limit. The code of the last release ignores these columns: while both versions run, it accepts a key beyond its limits. It refuses
-- keys of the new scopes, because it cannot read them.

ALTER TABLE api_key
    -- From this instant on the key is invalid. NULL: it has no end.
    ADD COLUMN expires_at timestamptz,
    -- The networks that may use the key, such as 10.1.0.0/16. NULL: every network.
    ADD COLUMN networks text[],
    -- The slugs, and the tags of monitors, about which a ping key reports. Both NULL: every monitor.
    ADD COLUMN slugs text[],
    ADD COLUMN tags text[],
    -- The address from which the key was last used.
    ADD COLUMN last_used_addr text,
    -- The key that a rotation made in its place. No foreign key: the new key may be forgotten first.
    ADD COLUMN replaced_by uuid,
    DROP CONSTRAINT api_key_scope,
    ADD CONSTRAINT api_key_scope CHECK (scope IN ('ping', 'read', 'write', 'audit', 'metrics')),
    ADD CONSTRAINT api_key_limits CHECK (
        cardinality(networks) BETWEEN 1 AND 50 AND cardinality(slugs) BETWEEN 1 AND 100 AND cardinality(tags) BETWEEN 1 AND 20
        AND (scope = 'ping' OR slugs IS NULL AND tags IS NULL) AND length(last_used_addr) <= 50
    );

-- Keys that ended go after a while, as revoked ones do.
DROP INDEX api_key_revoked;
CREATE INDEX api_key_ended ON api_key (least(revoked_at, expires_at)) WHERE least(revoked_at, expires_at) IS NOT NULL;
