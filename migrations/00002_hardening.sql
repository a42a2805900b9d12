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

-- Maxima of the columns that others fill; the table in store/sizes.go says the same, and a test holds them together. What is
-- longer came in before there was a maximum. It must not keep the cluster at the old schema for ever: documents become empty,
-- texts are cut, imported members come again by themselves, a remembered answer is forgotten.
UPDATE members SET name = substr(name, 1, 16) WHERE length(CAST(name AS BLOB)) > 64;
UPDATE members SET raft_address = substr(raft_address, 1, 75) WHERE length(CAST(raft_address AS BLOB)) > 300;
UPDATE members SET api_address = substr(api_address, 1, 75) WHERE length(CAST(api_address AS BLOB)) > 300;
UPDATE members SET advertise_addr = substr(advertise_addr, 1, 63) WHERE length(CAST(advertise_addr AS BLOB)) > 255;
UPDATE members SET wg_public_key = substr(wg_public_key, 1, 63) WHERE length(CAST(wg_public_key AS BLOB)) > 255;
UPDATE members SET binary_version = substr(binary_version, 1, 16) WHERE length(CAST(binary_version AS BLOB)) > 64;
UPDATE members SET os = substr(os, 1, 8) WHERE length(CAST(os AS BLOB)) > 32;
UPDATE members SET arch = substr(arch, 1, 8) WHERE length(CAST(arch AS BLOB)) > 32;
UPDATE members SET resources = '{}' WHERE length(CAST(resources AS BLOB)) > 16384;
UPDATE members SET labels = '{}' WHERE length(CAST(labels AS BLOB)) > 131072;
UPDATE members SET hooks_outcome = '[]' WHERE length(CAST(hooks_outcome AS BLOB)) > 65536;
UPDATE removed_members SET name = substr(name, 1, 16) WHERE length(CAST(name AS BLOB)) > 64;
UPDATE join_tokens SET labels = '{}' WHERE length(CAST(labels AS BLOB)) > 65536;
UPDATE join_tokens SET created_by = substr(created_by, 1, 300) WHERE length(CAST(created_by AS BLOB)) > 1200;
UPDATE join_token_uses SET remote = substr(remote, 1, 63) WHERE length(CAST(remote AS BLOB)) > 255;
UPDATE api_tokens SET created_by = substr(created_by, 1, 300) WHERE length(CAST(created_by AS BLOB)) > 1200;
UPDATE api_keys SET name = substr(name, 1, 256) WHERE length(CAST(name AS BLOB)) > 1024;
UPDATE api_keys SET role_descriptors = '{}' WHERE length(CAST(role_descriptors AS BLOB)) > 16384;
UPDATE api_keys SET metadata = '{}' WHERE length(CAST(metadata AS BLOB)) > 16384;
UPDATE api_keys SET owner_name = substr(owner_name, 1, 256) WHERE length(CAST(owner_name AS BLOB)) > 1024;
UPDATE enrollments SET enrolled_by = substr(enrolled_by, 1, 300) WHERE length(CAST(enrolled_by AS BLOB)) > 1200;
UPDATE enrollments SET remote = substr(remote, 1, 63) WHERE length(CAST(remote AS BLOB)) > 255;
UPDATE ca_rotations SET started_by = substr(started_by, 1, 300) WHERE length(CAST(started_by AS BLOB)) > 1200;
UPDATE peerings SET server_name = substr(server_name, 1, 63) WHERE length(CAST(server_name AS BLOB)) > 255;
UPDATE peerings SET server_addresses = '[]' WHERE length(CAST(server_addresses AS BLOB)) > 32768;
UPDATE peerings SET manual_addresses = '[]' WHERE length(CAST(manual_addresses AS BLOB)) > 32768;
UPDATE peerings SET ca_pems = '[]' WHERE length(CAST(ca_pems AS BLOB)) > 65536;
UPDATE peerings SET meta = '{}' WHERE length(CAST(meta AS BLOB)) > 65536;
UPDATE peerings SET remote_datacenter = substr(remote_datacenter, 1, 32) WHERE length(CAST(remote_datacenter AS BLOB)) > 128;
UPDATE peerings SET status_reason = substr(status_reason, 1, 256) WHERE length(CAST(status_reason AS BLOB)) > 1024;
DELETE FROM peer_members WHERE length(CAST(id AS BLOB)) > 255;
DELETE FROM peer_members WHERE length(CAST(name AS BLOB)) > 255;
DELETE FROM peer_members WHERE length(CAST(raft_address AS BLOB)) > 300;
DELETE FROM peer_members WHERE length(CAST(api_address AS BLOB)) > 300;
DELETE FROM peer_members WHERE length(CAST(health AS BLOB)) > 32;
UPDATE peering_tombstones SET server_name = substr(server_name, 1, 63) WHERE length(CAST(server_name AS BLOB)) > 255;
UPDATE peering_tombstones SET addresses = '[]' WHERE length(CAST(addresses AS BLOB)) > 32768;
UPDATE peering_tombstones SET ca_pems = '[]' WHERE length(CAST(ca_pems AS BLOB)) > 65536;
DELETE FROM idempotency WHERE length(CAST(key AS BLOB)) > 128;
DELETE FROM idempotency WHERE length(CAST(sealed AS BLOB)) > 262144;
UPDATE audit SET actor = substr(actor, 1, 300), remote = substr(remote, 1, 63), object = substr(object, 1, 128), detail = substr(detail, 1, 1024), request_id = substr(request_id, 1, 32)
WHERE length(CAST(actor AS BLOB)) > 1200
  OR length(CAST(remote AS BLOB)) > 255
  OR length(CAST(object AS BLOB)) > 512
  OR length(CAST(detail AS BLOB)) > 4096
  OR length(CAST(request_id AS BLOB)) > 128;
ALTER TABLE settings ADD CONSTRAINT size_settings_value CHECK (length(CAST(value AS BLOB)) <= 16384);
ALTER TABLE members ADD CONSTRAINT size_members_name CHECK (length(CAST(name AS BLOB)) <= 64);
ALTER TABLE members ADD CONSTRAINT size_members_raft_address CHECK (length(CAST(raft_address AS BLOB)) <= 300);
ALTER TABLE members ADD CONSTRAINT size_members_api_address CHECK (length(CAST(api_address AS BLOB)) <= 300);
ALTER TABLE members ADD CONSTRAINT size_members_advertise_addr CHECK (length(CAST(advertise_addr AS BLOB)) <= 255);
ALTER TABLE members ADD CONSTRAINT size_members_wg_public_key CHECK (length(CAST(wg_public_key AS BLOB)) <= 255);
ALTER TABLE members ADD CONSTRAINT size_members_binary_version CHECK (length(CAST(binary_version AS BLOB)) <= 64);
ALTER TABLE members ADD CONSTRAINT size_members_os CHECK (length(CAST(os AS BLOB)) <= 32);
ALTER TABLE members ADD CONSTRAINT size_members_arch CHECK (length(CAST(arch AS BLOB)) <= 32);
ALTER TABLE members ADD CONSTRAINT size_members_resources CHECK (length(CAST(resources AS BLOB)) <= 16384);
ALTER TABLE members ADD CONSTRAINT size_members_labels CHECK (length(CAST(labels AS BLOB)) <= 131072);
ALTER TABLE members ADD CONSTRAINT size_members_hooks_outcome CHECK (length(CAST(hooks_outcome AS BLOB)) <= 65536);
ALTER TABLE removed_members ADD CONSTRAINT size_removed_members_name CHECK (length(CAST(name AS BLOB)) <= 64);
ALTER TABLE leases ADD CONSTRAINT size_leases_id CHECK (length(CAST(id AS BLOB)) <= 128);
ALTER TABLE leases ADD CONSTRAINT size_leases_kind CHECK (length(CAST(kind AS BLOB)) <= 64);
ALTER TABLE join_tokens ADD CONSTRAINT size_join_tokens_labels CHECK (length(CAST(labels AS BLOB)) <= 65536);
ALTER TABLE join_tokens ADD CONSTRAINT size_join_tokens_hosts CHECK (length(CAST(hosts AS BLOB)) <= 16384);
ALTER TABLE join_tokens ADD CONSTRAINT size_join_tokens_bind_cidr CHECK (length(CAST(bind_cidr AS BLOB)) <= 64);
ALTER TABLE join_tokens ADD CONSTRAINT size_join_tokens_bind_name CHECK (length(CAST(bind_name AS BLOB)) <= 128);
ALTER TABLE join_tokens ADD CONSTRAINT size_join_tokens_bind_key CHECK (length(CAST(bind_key AS BLOB)) <= 64);
ALTER TABLE join_tokens ADD CONSTRAINT size_join_tokens_created_by CHECK (length(CAST(created_by AS BLOB)) <= 1200);
ALTER TABLE join_token_uses ADD CONSTRAINT size_join_token_uses_remote CHECK (length(CAST(remote AS BLOB)) <= 255);
ALTER TABLE api_tokens ADD CONSTRAINT size_api_tokens_name CHECK (length(CAST(name AS BLOB)) <= 64);
ALTER TABLE api_tokens ADD CONSTRAINT size_api_tokens_created_by CHECK (length(CAST(created_by AS BLOB)) <= 1200);
ALTER TABLE api_keys ADD CONSTRAINT size_api_keys_name CHECK (length(CAST(name AS BLOB)) <= 1024);
ALTER TABLE api_keys ADD CONSTRAINT size_api_keys_role_descriptors CHECK (length(CAST(role_descriptors AS BLOB)) <= 16384);
ALTER TABLE api_keys ADD CONSTRAINT size_api_keys_metadata CHECK (length(CAST(metadata AS BLOB)) <= 16384);
ALTER TABLE api_keys ADD CONSTRAINT size_api_keys_owner_name CHECK (length(CAST(owner_name AS BLOB)) <= 1024);
ALTER TABLE enrollments ADD CONSTRAINT size_enrollments_enrolled_by CHECK (length(CAST(enrolled_by AS BLOB)) <= 1200);
ALTER TABLE enrollments ADD CONSTRAINT size_enrollments_remote CHECK (length(CAST(remote AS BLOB)) <= 255);
ALTER TABLE authorities ADD CONSTRAINT size_authorities_cert_pem CHECK (length(CAST(cert_pem AS BLOB)) <= 262144);
ALTER TABLE authorities ADD CONSTRAINT size_authorities_sealed_key CHECK (length(CAST(sealed_key AS BLOB)) <= 16384);
ALTER TABLE ca_rotations ADD CONSTRAINT size_ca_rotations_started_by CHECK (length(CAST(started_by AS BLOB)) <= 1200);
ALTER TABLE secrets ADD CONSTRAINT size_secrets_name CHECK (length(CAST(name AS BLOB)) <= 128);
ALTER TABLE secrets ADD CONSTRAINT size_secrets_sealed CHECK (length(CAST(sealed AS BLOB)) <= 67584);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_name CHECK (length(CAST(name AS BLOB)) <= 64);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_peer_id CHECK (length(CAST(peer_id AS BLOB)) <= 255);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_server_name CHECK (length(CAST(server_name AS BLOB)) <= 255);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_server_addresses CHECK (length(CAST(server_addresses AS BLOB)) <= 32768);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_manual_addresses CHECK (length(CAST(manual_addresses AS BLOB)) <= 32768);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_ca_pems CHECK (length(CAST(ca_pems AS BLOB)) <= 65536);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_meta CHECK (length(CAST(meta AS BLOB)) <= 65536);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_remote_datacenter CHECK (length(CAST(remote_datacenter AS BLOB)) <= 128);
ALTER TABLE peerings ADD CONSTRAINT size_peerings_status_reason CHECK (length(CAST(status_reason AS BLOB)) <= 1024);
ALTER TABLE peering_secrets ADD CONSTRAINT size_peering_secrets_sealed CHECK (length(CAST(sealed AS BLOB)) <= 4096);
ALTER TABLE peer_members ADD CONSTRAINT size_peer_members_id CHECK (length(CAST(id AS BLOB)) <= 255);
ALTER TABLE peer_members ADD CONSTRAINT size_peer_members_name CHECK (length(CAST(name AS BLOB)) <= 255);
ALTER TABLE peer_members ADD CONSTRAINT size_peer_members_raft_address CHECK (length(CAST(raft_address AS BLOB)) <= 300);
ALTER TABLE peer_members ADD CONSTRAINT size_peer_members_api_address CHECK (length(CAST(api_address AS BLOB)) <= 300);
ALTER TABLE peer_members ADD CONSTRAINT size_peer_members_health CHECK (length(CAST(health AS BLOB)) <= 32);
ALTER TABLE peering_tombstones ADD CONSTRAINT size_peering_tombstones_name CHECK (length(CAST(name AS BLOB)) <= 64);
ALTER TABLE peering_tombstones ADD CONSTRAINT size_peering_tombstones_peer_id CHECK (length(CAST(peer_id AS BLOB)) <= 255);
ALTER TABLE peering_tombstones ADD CONSTRAINT size_peering_tombstones_server_name CHECK (length(CAST(server_name AS BLOB)) <= 255);
ALTER TABLE peering_tombstones ADD CONSTRAINT size_peering_tombstones_addresses CHECK (length(CAST(addresses AS BLOB)) <= 32768);
ALTER TABLE peering_tombstones ADD CONSTRAINT size_peering_tombstones_ca_pems CHECK (length(CAST(ca_pems AS BLOB)) <= 65536);
ALTER TABLE peering_tombstones ADD CONSTRAINT size_peering_tombstones_sealed CHECK (length(CAST(sealed AS BLOB)) <= 4096);
ALTER TABLE idempotency ADD CONSTRAINT size_idempotency_key CHECK (length(CAST(key AS BLOB)) <= 128);
ALTER TABLE idempotency ADD CONSTRAINT size_idempotency_sealed CHECK (length(CAST(sealed AS BLOB)) <= 262144);
ALTER TABLE audit ADD CONSTRAINT size_audit_actor CHECK (length(CAST(actor AS BLOB)) <= 1200);
ALTER TABLE audit ADD CONSTRAINT size_audit_remote CHECK (length(CAST(remote AS BLOB)) <= 255);
ALTER TABLE audit ADD CONSTRAINT size_audit_object CHECK (length(CAST(object AS BLOB)) <= 512);
ALTER TABLE audit ADD CONSTRAINT size_audit_detail CHECK (length(CAST(detail AS BLOB)) <= 4096);
ALTER TABLE audit ADD CONSTRAINT size_audit_request_id CHECK (length(CAST(request_id AS BLOB)) <= 128);

-- No two live members share an address or a name: each join and each move looks for others that have them.
CREATE INDEX members_by_api_address ON members (api_address);
CREATE INDEX members_by_name ON members (name);

-- Hosts that a member's certificates may be for: what its token allows and what is proven. Those that were there before had
-- certificates for all of their addresses, and keep them.
ALTER TABLE members ADD COLUMN hosts TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(hosts));
UPDATE members SET hosts = json_object('proven', json_array(
    lower(trim(rtrim(rtrim(raft_address, '0123456789'), ':'), '[]')),
    lower(trim(rtrim(rtrim(api_address, '0123456789'), ':'), '[]')),
    lower(advertise_addr)));
ALTER TABLE members ADD CONSTRAINT size_members_hosts CHECK (length(CAST(hosts AS BLOB)) <= 32768);
