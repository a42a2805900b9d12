-- +goose Up

-- One row: the identity of the cluster and the counters that every transaction touches.
-- `revision` rises by exactly one per committed transaction; the trigger below is what makes a
-- leader's batch fail as a whole when it was prepared on anything but the newest state.
CREATE TABLE cluster (
  one            INTEGER PRIMARY KEY CHECK (one = 1),
  id             TEXT    NOT NULL,
  created_at     TEXT    NOT NULL,
  revision       INTEGER NOT NULL,
  batch_id       TEXT    NOT NULL,
  epoch          INTEGER NOT NULL,
  leader_node_id INTEGER NOT NULL
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER cluster_revision BEFORE UPDATE OF revision ON cluster
WHEN NEW.revision <> OLD.revision + 1
BEGIN
  SELECT RAISE(ABORT, 'revision moved');
END;
-- +goose StatementEnd

CREATE TABLE settings (
  name         TEXT PRIMARY KEY,
  value        TEXT NOT NULL,
  modified_rev INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Counters whose values are never handed out twice ('raft_node_id', 'overlay_host').
CREATE TABLE sequences (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
  raft_node_id     INTEGER PRIMARY KEY,
  id               TEXT    NOT NULL UNIQUE,
  name             TEXT    NOT NULL,
  mode             TEXT    NOT NULL CHECK (mode IN ('full', 'replicate')),
  raft_role        TEXT    NOT NULL DEFAULT '' CHECK (raft_role IN ('', 'spare', 'standby', 'voter')),
  pinned           INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
  raft_address     TEXT    NOT NULL,
  api_address      TEXT    NOT NULL,
  advertise_addr   TEXT    NOT NULL,
  overlay_port     INTEGER NOT NULL DEFAULT 0,
  wg_public_key    TEXT    NOT NULL DEFAULT '',
  recipient        TEXT    UNIQUE,
  binary_version   TEXT    NOT NULL DEFAULT '',
  max_schema       INTEGER NOT NULL DEFAULT 0,
  os               TEXT    NOT NULL DEFAULT '',
  arch             TEXT    NOT NULL DEFAULT '',
  resources        TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(resources)),
  labels           TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
  drain_state      TEXT    NOT NULL DEFAULT 'active' CHECK (drain_state IN ('active', 'draining', 'drained')),
  drain_updated_at TEXT,
  drain_generation INTEGER NOT NULL DEFAULT 0, -- rises with every drain and resume: what was begun before is void
  drain_deadline   TEXT,                       -- until when leases are waited for
  hooks_pending    TEXT    NOT NULL DEFAULT '' CHECK (hooks_pending IN ('', 'drain', 'resume')),
  hooks_outcome    TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(hooks_outcome)),
  joined_at        TEXT    NOT NULL,
  join_token_id    TEXT,
  cert_key         TEXT    NOT NULL DEFAULT '',
  created_rev      INTEGER NOT NULL,
  modified_rev     INTEGER NOT NULL
) STRICT;
CREATE INDEX members_by_role ON members (raft_role, raft_node_id);
CREATE INDEX members_by_address ON members (raft_address);

CREATE INDEX members_drain ON members (drain_state) WHERE drain_state = 'draining' OR hooks_pending <> '';

-- What still runs on a member; it expires unless it is renewed.
CREATE TABLE leases (
  id           TEXT    PRIMARY KEY,
  raft_node_id INTEGER NOT NULL,
  kind         TEXT    NOT NULL,
  created_at   TEXT    NOT NULL,
  expires_at   TEXT    NOT NULL,
  created_rev  INTEGER NOT NULL,
  modified_rev INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_by_member ON leases (raft_node_id, expires_at);
CREATE INDEX leases_by_expiry ON leases (expires_at);

-- Work that outlives a request and a leader: whoever leads finishes what is running.
CREATE TABLE operations (
  id           TEXT    PRIMARY KEY,
  kind         TEXT    NOT NULL,
  object       TEXT    NOT NULL,
  state        TEXT    NOT NULL CHECK (state IN ('running', 'done')),
  detail       TEXT    NOT NULL DEFAULT '',
  created_at   TEXT    NOT NULL,
  updated_at   TEXT    NOT NULL,
  created_rev  INTEGER NOT NULL,
  modified_rev INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX operations_running ON operations (kind, object) WHERE state = 'running';

-- Machines that are members no longer. Ids and keys in here are refused for ever.
CREATE TABLE removed_members (
  raft_node_id INTEGER PRIMARY KEY,
  id           TEXT NOT NULL UNIQUE,
  name         TEXT NOT NULL,
  recipient    TEXT,
  removed_at   TEXT NOT NULL,
  removed_rev  INTEGER NOT NULL
) STRICT;
CREATE INDEX removed_by_recipient ON removed_members (recipient) WHERE recipient IS NOT NULL;

-- Overlay hosts and slices: slot n of the cluster's CIDR belongs to one member at a time.
CREATE TABLE overlay_allocations (
  kind         TEXT    NOT NULL CHECK (kind IN ('host', 'slice')),
  slot         INTEGER NOT NULL,
  raft_node_id INTEGER,
  released_at  TEXT,
  PRIMARY KEY (kind, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX overlay_by_member ON overlay_allocations (raft_node_id, kind);
CREATE INDEX overlay_released ON overlay_allocations (kind, slot) WHERE raft_node_id IS NULL;

CREATE TABLE join_tokens (
  id           TEXT    PRIMARY KEY,
  format       TEXT    NOT NULL CHECK (format IN ('muster', 'zlayer')),
  raft_node_id INTEGER,
  mode         TEXT    NOT NULL CHECK (mode IN ('', 'full', 'replicate')),
  labels       TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
  bind_cidr    TEXT    NOT NULL DEFAULT '', -- only for callers from this prefix
  bind_name    TEXT    NOT NULL DEFAULT '', -- only for names that fit this pattern
  bind_key     TEXT    NOT NULL DEFAULT '', -- only for the public key with this SHA-256
  uses         INTEGER NOT NULL DEFAULT 0,
  max_uses     INTEGER NOT NULL CHECK (max_uses > 0),
  created_by   TEXT    NOT NULL,
  created_at   TEXT    NOT NULL,
  expires_at   TEXT    NOT NULL,
  revoked_at   TEXT,
  created_rev  INTEGER NOT NULL,
  modified_rev INTEGER NOT NULL,
  CHECK (uses <= max_uses)
) STRICT, WITHOUT ROWID;
CREATE INDEX join_tokens_by_node ON join_tokens (raft_node_id) WHERE raft_node_id IS NOT NULL;

CREATE TABLE join_token_uses (
  token_id     TEXT    NOT NULL REFERENCES join_tokens (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  raft_node_id INTEGER NOT NULL,
  recipient    TEXT,
  used_at      TEXT    NOT NULL,
  remote       TEXT    NOT NULL,
  PRIMARY KEY (token_id, raft_node_id)
) STRICT, WITHOUT ROWID;

-- secret_hash is SHA-256 of a 256-bit random secret: nothing to guess, nothing to salt.
CREATE TABLE api_tokens (
  id           TEXT    PRIMARY KEY,
  name         TEXT    NOT NULL,
  secret_hash  TEXT    NOT NULL UNIQUE,
  scopes       TEXT    NOT NULL CHECK (json_valid(scopes)),
  created_by   TEXT    NOT NULL,
  created_at   TEXT    NOT NULL,
  expires_at   TEXT,
  created_rev  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Credentials in Elasticsearch's form, id:secret. They are invalidated, not deleted, and know how often they were used.
-- kind 'enrollment_token' is a key that stands in an enrollment token.
CREATE TABLE api_keys (
  id               TEXT    PRIMARY KEY,
  kind             TEXT    NOT NULL CHECK (kind IN ('api_key', 'enrollment_token')),
  name             TEXT    NOT NULL,
  secret_hash      TEXT    NOT NULL,
  scopes           TEXT    NOT NULL CHECK (json_valid(scopes)),
  role_descriptors TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(role_descriptors)),
  metadata         TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
  owner_id         TEXT    NOT NULL, -- the credential that made it
  owner_name       TEXT    NOT NULL,
  uses             INTEGER NOT NULL DEFAULT 0, -- enrollments
  max_uses         INTEGER CHECK (max_uses > 0), -- NULL: any number
  created_at       TEXT    NOT NULL,
  expires_at       TEXT,
  revoked_at       TEXT,
  created_rev      INTEGER NOT NULL,
  modified_rev     INTEGER NOT NULL,
  CHECK (max_uses IS NULL OR uses <= max_uses)
) STRICT, WITHOUT ROWID;

-- Machines of other software that were given key material, and the certificates that were made for them.
CREATE TABLE enrollments (
  id               TEXT    PRIMARY KEY,
  kind             TEXT    NOT NULL CHECK (kind IN ('node', 'kibana')),
  key_id           TEXT    NOT NULL DEFAULT '', -- of api_keys, empty when it was an API token
  enrolled_by      TEXT    NOT NULL,
  remote           TEXT    NOT NULL,
  transport_serial TEXT,   -- of certificates
  http_ca_serial   TEXT,   -- of certificates; NULL when the key of the root was handed out
  service_token_id TEXT,   -- of api_tokens
  enrolled_at      TEXT    NOT NULL,
  expires_at       TEXT    NOT NULL,
  revoked_at       TEXT,
  created_rev      INTEGER NOT NULL,
  modified_rev     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX enrollments_by_key ON enrollments (key_id) WHERE key_id <> '';

-- Certificate authorities; the private key is sealed under the data-encryption key and erased with retirement. A rotation
-- has two generations: the active one issues, the other (prepared or trusted) is trusted too.
CREATE TABLE authorities (
  kind           TEXT    NOT NULL CHECK (kind IN ('http', 'transport')),
  generation     INTEGER NOT NULL,
  state          TEXT    NOT NULL CHECK (state IN ('prepared', 'active', 'trusted', 'retired')),
  origin         TEXT    NOT NULL DEFAULT 'muster' CHECK (origin IN ('muster', 'operator')),
  cert_pem       TEXT    NOT NULL,            -- the CA's own certificate, then those that certify it
  cross_pem      TEXT    NOT NULL DEFAULT '', -- the CA certified by the other one of a rotation
  fingerprint    TEXT    NOT NULL,
  sealed_key     BLOB    NOT NULL,
  dek_generation INTEGER NOT NULL REFERENCES dek_generations (generation) DEFERRABLE INITIALLY DEFERRED,
  created_at     TEXT    NOT NULL,
  expires_at     TEXT    NOT NULL,
  warned_at      TEXT,
  created_rev    INTEGER NOT NULL,
  modified_rev   INTEGER NOT NULL, -- not raised by a re-encryption of the key
  PRIMARY KEY (kind, generation),
  CHECK ((state = 'retired') = (length(sealed_key) = 0))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX authorities_active ON authorities (kind) WHERE state = 'active';

-- The rotation of an authority that is under way: at most one per kind.
CREATE TABLE ca_rotations (
  kind            TEXT    PRIMARY KEY CHECK (kind IN ('http', 'transport')),
  phase           TEXT    NOT NULL CHECK (phase IN ('trust', 'issue', 'overlap')),
  old_generation  INTEGER NOT NULL, -- the one that is to go
  new_generation  INTEGER NOT NULL,
  overlap_seconds INTEGER NOT NULL,
  rolled_back     INTEGER NOT NULL DEFAULT 0 CHECK (rolled_back IN (0, 1)),
  started_at      TEXT    NOT NULL,
  started_by      TEXT    NOT NULL,
  phase_at        TEXT    NOT NULL,
  drop_at         TEXT,             -- of the old one, once the phase is overlap
  modified_rev    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE certificates (
  serial       TEXT    PRIMARY KEY,
  kind         TEXT    NOT NULL,
  raft_node_id INTEGER,
  authority    INTEGER, -- generation of the authority of that kind
  issued_at    TEXT    NOT NULL,
  expires_at   TEXT    NOT NULL,
  revoked_at   TEXT,
  warned_at    TEXT,
  created_rev  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_member ON certificates (raft_node_id);
CREATE INDEX certificates_by_expiry ON certificates (expires_at);

CREATE TABLE dek_generations (
  generation  INTEGER PRIMARY KEY,
  state       TEXT    NOT NULL CHECK (state IN ('prepared', 'active', 're-encrypting', 'retired')),
  reason      TEXT    NOT NULL,
  rows_total  INTEGER NOT NULL DEFAULT 0, -- sealed values that were to be re-encrypted when it became active
  created_at  TEXT    NOT NULL,
  created_rev INTEGER NOT NULL
) STRICT;

-- One age ciphertext per member and generation: `age -d -i node.key` opens it.
CREATE TABLE dek_wraps (
  generation   INTEGER NOT NULL REFERENCES dek_generations (generation) DEFERRABLE INITIALLY DEFERRED,
  raft_node_id INTEGER NOT NULL,
  wrap         BLOB    NOT NULL,
  created_rev  INTEGER NOT NULL,
  PRIMARY KEY (generation, raft_node_id)
) STRICT, WITHOUT ROWID;

-- Keys of the cluster in epochs: 'join-hmac', 'join-signing', 'join-secret', 'jwt'. The secret part is a sealed secret
-- named key/<purpose>/<epoch>. A key in grace still verifies; a retired one only recognises who used it before.
CREATE TABLE cluster_keys (
  purpose      TEXT    NOT NULL,
  epoch        INTEGER NOT NULL,
  state        TEXT    NOT NULL CHECK (state IN ('active', 'grace', 'retired')),
  kid          TEXT    NOT NULL,
  public       TEXT    NOT NULL DEFAULT '', -- Base64 of an Ed25519 public key
  created_at   TEXT    NOT NULL,
  grace_until  TEXT,
  created_rev  INTEGER NOT NULL,
  modified_rev INTEGER NOT NULL,
  PRIMARY KEY (purpose, epoch)
) STRICT, WITHOUT ROWID;

-- Secrets that operators keep here; the value is sealed under the data-encryption key.
CREATE TABLE secrets (
  name           TEXT    PRIMARY KEY,
  version        INTEGER NOT NULL,
  sealed         BLOB    NOT NULL,
  dek_generation INTEGER NOT NULL REFERENCES dek_generations (generation) DEFERRABLE INITIALLY DEFERRED,
  created_at     TEXT    NOT NULL,
  updated_at     TEXT    NOT NULL,
  created_rev    INTEGER NOT NULL,
  modified_rev   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX secrets_by_generation ON secrets (dek_generation);

-- Values that only members may read: keys of the cluster.
CREATE TABLE sealed_secrets (
  name           TEXT    PRIMARY KEY,
  sealed         BLOB    NOT NULL,
  dek_generation INTEGER NOT NULL REFERENCES dek_generations (generation) DEFERRABLE INITIALLY DEFERRED,
  created_at     TEXT    NOT NULL,
  modified_rev   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Other clusters. Who made the token accepts streams, who used it dials. ca_pems, server_name and the addresses say
-- how a dialer reaches the other side; an acceptor has the other side's authorities only.
CREATE TABLE peerings (
  id                TEXT    PRIMARY KEY,
  name              TEXT    NOT NULL UNIQUE,
  state             TEXT    NOT NULL CHECK (state IN ('PENDING', 'ESTABLISHING', 'ACTIVE', 'FAILING', 'DELETING', 'TERMINATED')),
  dialer            INTEGER NOT NULL CHECK (dialer IN (0, 1)),
  peer_id           TEXT    NOT NULL DEFAULT '', -- the acceptor's own id of the peering
  server_name       TEXT    NOT NULL DEFAULT '',
  server_addresses  TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(server_addresses)),
  manual_addresses  TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(manual_addresses)), -- take precedence
  ca_pems           TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(ca_pems)),
  meta              TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(meta)),
  remote_datacenter TEXT    NOT NULL DEFAULT '',
  status_reason     TEXT    NOT NULL DEFAULT '',
  status_since      TEXT    NOT NULL,
  deleted_at        TEXT,
  created_rev       INTEGER NOT NULL,
  modified_rev      INTEGER NOT NULL,
  CHECK ((state = 'DELETING') = (deleted_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- An acceptor has SHA-256 of its secrets (128 random bits), a dialer its stream secret, sealed.
CREATE TABLE peering_secrets (
  peering_id           TEXT PRIMARY KEY,
  establish_hash       TEXT NOT NULL DEFAULT '', -- of the newest token; serves once
  establish_expires_at TEXT,
  pending_hash         TEXT NOT NULL DEFAULT '', -- given out, not used yet
  active_hash          TEXT NOT NULL DEFAULT '',
  sealed               BLOB,
  dek_generation       INTEGER REFERENCES dek_generations (generation) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;
CREATE INDEX peering_secrets_by_generation ON peering_secrets (dek_generation) WHERE dek_generation IS NOT NULL;

-- Members of other clusters, as these have exported them.
CREATE TABLE peer_members (
  peering_id   TEXT    NOT NULL,
  id           TEXT    NOT NULL,
  name         TEXT    NOT NULL,
  raft_node_id INTEGER NOT NULL,
  raft_address TEXT    NOT NULL,
  api_address  TEXT    NOT NULL,
  health       TEXT    NOT NULL,
  modified_rev INTEGER NOT NULL,
  PRIMARY KEY (peering_id, id)
) STRICT, WITHOUT ROWID;

-- What is left of a deleted peering until the other side has learnt of it: an acceptor recognises the dialer's secret,
-- a dialer still knows how to reach the acceptor.
CREATE TABLE peering_tombstones (
  id             TEXT    PRIMARY KEY,
  name           TEXT    NOT NULL,
  dialer         INTEGER NOT NULL CHECK (dialer IN (0, 1)),
  peer_id        TEXT    NOT NULL,
  server_name    TEXT    NOT NULL,
  addresses      TEXT    NOT NULL CHECK (json_valid(addresses)),
  ca_pems        TEXT    NOT NULL CHECK (json_valid(ca_pems)),
  pending_hash   TEXT    NOT NULL,
  active_hash    TEXT    NOT NULL,
  sealed         BLOB,
  dek_generation INTEGER REFERENCES dek_generations (generation) DEFERRABLE INITIALLY DEFERRED,
  deleted_at     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX peering_tombstones_by_generation ON peering_tombstones (dek_generation) WHERE dek_generation IS NOT NULL;

-- Answers kept for a while, so that a repeated Idempotency-Key gives the same one.
CREATE TABLE idempotency (
  accessor       TEXT    NOT NULL,
  key            TEXT    NOT NULL,
  sealed         BLOB    NOT NULL,
  dek_generation INTEGER NOT NULL REFERENCES dek_generations (generation) DEFERRABLE INITIALLY DEFERRED,
  created_at     TEXT    NOT NULL,
  PRIMARY KEY (accessor, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_generation ON idempotency (dek_generation);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Who did what; seq counts within a revision. There is no other index: a page more in each commit costs every write a
-- tenth, and a search through a million rows takes 0.2 s.
CREATE TABLE audit (
  revision   INTEGER NOT NULL,
  seq        INTEGER NOT NULL,
  at         TEXT    NOT NULL,
  actor      TEXT    NOT NULL,
  node_id    INTEGER NOT NULL,
  remote     TEXT    NOT NULL,
  action     TEXT    NOT NULL,
  object     TEXT    NOT NULL,
  outcome    TEXT    NOT NULL,
  detail     TEXT    NOT NULL DEFAULT '',
  request_id TEXT    NOT NULL,
  PRIMARY KEY (revision, seq)
) STRICT, WITHOUT ROWID;

-- Raft servers and others that have stopped answering, as the leader has noted it; see member.unhealthy in the audit.
CREATE TABLE unhealthy_members (
  raft_node_id INTEGER PRIMARY KEY,
  since        TEXT    NOT NULL,
  created_rev  INTEGER NOT NULL
) STRICT;

-- Views for the sqlite3 prompt.
CREATE VIEW v_members AS
SELECT m.raft_node_id AS node, m.name,
       CASE m.raft_role WHEN '' THEN 'member' ELSE m.raft_role END AS role,
       CASE WHEN m.raft_node_id = c.leader_node_id THEN 'leader' ELSE '' END AS leader,
       m.mode, m.drain_state AS drain, m.raft_address, m.api_address,
       m.binary_version AS version, m.joined_at, m.id
FROM members m, cluster c ORDER BY m.raft_node_id;

CREATE VIEW v_tokens AS
SELECT 'join' AS kind, id, CASE WHEN raft_node_id IS NULL THEN 'any node' ELSE 'node ' || raft_node_id END AS bound_to,
       uses || ' of ' || max_uses AS used,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN uses >= max_uses THEN 'used'
            WHEN expires_at < strftime('%Y-%m-%dT%H:%M:%SZ', 'now') THEN 'expired' ELSE 'valid' END AS state,
       created_by, created_at, expires_at
FROM join_tokens
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

CREATE VIEW v_enrollments AS
SELECT id, kind, enrolled_by, remote, enrolled_at, expires_at, transport_serial, http_ca_serial, key_id, revoked_at
FROM enrollments ORDER BY enrolled_at, id;

CREATE VIEW v_peerings AS
SELECT p.name, p.state, p.status_since AS since, p.status_reason AS reason,
       CASE p.dialer WHEN 1 THEN 'we dial' ELSE 'they dial' END AS direction, p.remote_datacenter AS datacenter,
       (SELECT count(*) FROM peer_members m WHERE m.peering_id = p.id) AS members,
       CASE p.manual_addresses WHEN '[]' THEN p.server_addresses ELSE p.manual_addresses END AS addresses, p.deleted_at, p.id
FROM peerings p ORDER BY p.name;

CREATE VIEW v_keys AS
SELECT g.generation, g.state, g.reason, g.created_at, g.rows_total AS sealed_then, count(w.raft_node_id) AS holders,
       group_concat(w.raft_node_id, ' ') AS held_by
FROM dek_generations g LEFT JOIN dek_wraps w USING (generation)
GROUP BY g.generation ORDER BY g.generation;

CREATE VIEW v_audit AS
SELECT revision || '.' || seq AS id, at, actor, node_id AS node, remote, action, object, outcome, detail
FROM audit ORDER BY revision, seq;
CREATE VIEW v_authorities AS
SELECT a.kind, a.generation, a.state, r.phase AS rotation, r.drop_at, a.origin, a.fingerprint, a.created_at, a.expires_at
FROM authorities a LEFT JOIN ca_rotations r ON r.kind = a.kind AND a.state <> 'retired' ORDER BY a.kind, a.generation;

CREATE VIEW v_certificates AS
SELECT c.kind, c.raft_node_id AS node, m.name, c.authority, c.issued_at, c.expires_at, c.revoked_at, c.serial
FROM certificates c LEFT JOIN members m USING (raft_node_id) ORDER BY c.expires_at;
