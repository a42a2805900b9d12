-- +goose Up

-- Hosts that a joiner may have in its HTTP certificate besides its own addresses.
ALTER TABLE join_tokens ADD COLUMN hosts TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(hosts));

-- A join token is superseded when the epoch of the key that signed it verifies no longer. A token is only ever made with
-- the active epoch, and one that began in the token's own revision began after it.
DROP VIEW v_tokens;
CREATE VIEW v_tokens AS
SELECT 'join' AS kind, id, CASE WHEN raft_node_id IS NULL THEN 'any node' ELSE 'node ' || raft_node_id END AS bound_to,
       uses || ' of ' || max_uses AS used,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN uses >= max_uses THEN 'used'
            WHEN expires_at < strftime('%Y-%m-%dT%H:%M:%SZ', 'now') THEN 'expired'
            WHEN NOT EXISTS (SELECT 1 FROM cluster_keys k
                 WHERE k.purpose = CASE t.format WHEN 'zlayer' THEN 'join-signing' ELSE 'join-hmac' END
                   AND k.epoch = (SELECT max(e.epoch) FROM cluster_keys e WHERE e.purpose = k.purpose AND e.created_rev < t.created_rev)
                   AND (k.state = 'active' OR k.state = 'grace' AND k.grace_until > strftime('%Y-%m-%dT%H:%M:%SZ', 'now')))
            THEN 'superseded' ELSE 'valid' END AS state,
       created_by, created_at, expires_at
FROM join_tokens t
UNION ALL
SELECT 'api', id, name, '', CASE WHEN expires_at < strftime('%Y-%m-%dT%H:%M:%SZ', 'now') THEN 'expired' ELSE 'valid' END,
       created_by, created_at, expires_at
FROM api_tokens
UNION ALL
SELECT CASE kind WHEN 'enrollment_token' THEN 'enroll' ELSE 'api key' END, id, name, uses || ' of ' || coalesce(max_uses, 'any'),
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN uses >= max_uses THEN 'used'
            WHEN expires_at < strftime('%Y-%m-%dT%H:%M:%SZ', 'now') THEN 'expired' ELSE 'valid' END,
       owner_name, created_at, expires_at
FROM api_keys;

-- No two live members share an address or a name: each join and each move looks for others that have them.
CREATE INDEX members_by_api_address ON members (api_address);
CREATE INDEX members_by_name ON members (name);
