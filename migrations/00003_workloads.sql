-- +goose Up

-- A third kind of certificate authority, for identities of software. SQLite cannot change a CHECK: both tables are made again,
-- with the same columns.
DROP VIEW v_authorities;
CREATE TABLE new_authorities (
  kind           TEXT    NOT NULL CHECK (kind IN ('http', 'transport', 'workload')),
  generation     INTEGER NOT NULL,
  state          TEXT    NOT NULL CHECK (state IN ('prepared', 'active', 'trusted', 'retired')),
  origin         TEXT    NOT NULL DEFAULT 'muster' CHECK (origin IN ('muster', 'operator')),
  cert_pem       TEXT    NOT NULL,            -- the CA's own certificate, then those that certify it
  cross_pem      TEXT    NOT NULL DEFAULT '', -- the CA certified by the other one of a rotation
  fingerprint    TEXT    NOT NULL,
  sealed_key     BLOB    NOT NULL,            -- of the kind 'workload': also the key that signs JWT-SVIDs
  dek_generation INTEGER NOT NULL REFERENCES dek_generations (generation) DEFERRABLE INITIALLY DEFERRED,
  created_at     TEXT    NOT NULL,
  expires_at     TEXT    NOT NULL,
  warned_at      TEXT,
  created_rev    INTEGER NOT NULL,
  modified_rev   INTEGER NOT NULL, -- not raised by a re-encryption of the key
  PRIMARY KEY (kind, generation),
  CHECK ((state = 'retired') = (length(sealed_key) = 0)),
  CONSTRAINT size_authorities_cert_pem CHECK (length(CAST(cert_pem AS BLOB)) <= 262144),
  CONSTRAINT size_authorities_sealed_key CHECK (length(CAST(sealed_key AS BLOB)) <= 16384)
) STRICT, WITHOUT ROWID;
INSERT INTO new_authorities (kind, generation, state, origin, cert_pem, cross_pem, fingerprint, sealed_key, dek_generation,
  created_at, expires_at, warned_at, created_rev, modified_rev)
SELECT kind, generation, state, origin, cert_pem, cross_pem, fingerprint, sealed_key, dek_generation,
  created_at, expires_at, warned_at, created_rev, modified_rev FROM authorities;
DROP TABLE authorities;
ALTER TABLE new_authorities RENAME TO authorities;
CREATE UNIQUE INDEX authorities_active ON authorities (kind) WHERE state = 'active';

CREATE TABLE new_ca_rotations (
  kind            TEXT    PRIMARY KEY CHECK (kind IN ('http', 'transport', 'workload')),
  phase           TEXT    NOT NULL CHECK (phase IN ('trust', 'issue', 'overlap')),
  old_generation  INTEGER NOT NULL, -- the one that is to go
  new_generation  INTEGER NOT NULL,
  overlap_seconds INTEGER NOT NULL,
  rolled_back     INTEGER NOT NULL DEFAULT 0 CHECK (rolled_back IN (0, 1)),
  started_at      TEXT    NOT NULL,
  started_by      TEXT    NOT NULL,
  phase_at        TEXT    NOT NULL,
  drop_at         TEXT,             -- of the old one, once the phase is overlap
  modified_rev    INTEGER NOT NULL,
  CONSTRAINT size_ca_rotations_started_by CHECK (length(CAST(started_by AS BLOB)) <= 1200)
) STRICT, WITHOUT ROWID;
INSERT INTO new_ca_rotations (kind, phase, old_generation, new_generation, overlap_seconds, rolled_back, started_at, started_by,
  phase_at, drop_at, modified_rev)
SELECT kind, phase, old_generation, new_generation, overlap_seconds, rolled_back, started_at, started_by,
  phase_at, drop_at, modified_rev FROM ca_rotations;
DROP TABLE ca_rotations;
ALTER TABLE new_ca_rotations RENAME TO ca_rotations;

CREATE VIEW v_authorities AS
SELECT a.kind, a.generation, a.state, r.phase AS rotation, r.drop_at, a.origin, a.fingerprint, a.created_at, a.expires_at
FROM authorities a LEFT JOIN ca_rotations r ON r.kind = a.kind AND a.state <> 'retired' ORDER BY a.kind, a.generation;

-- The public part of the keys that sign JWT-SVIDs: one for each generation of the workload authority that is trusted.
CREATE TABLE jwt_authorities (
  generation INTEGER PRIMARY KEY,
  kid        TEXT    NOT NULL,
  public     TEXT    NOT NULL, -- PEM
  created_at TEXT    NOT NULL
) STRICT;

-- Software that gets an identity from the members it runs on. What asks must match every selector that is not empty.
CREATE TABLE workloads (
  id           TEXT    PRIMARY KEY,
  path         TEXT    NOT NULL,            -- of the SPIFFE ID
  raft_node_id INTEGER NOT NULL DEFAULT 0,  -- 0: on any member
  unix_user    TEXT    NOT NULL DEFAULT '', -- name or number
  unix_group   TEXT    NOT NULL DEFAULT '', -- name or number
  systemd_unit TEXT    NOT NULL DEFAULT '',
  hosts        TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(hosts)), -- in its certificates besides the SPIFFE ID
  created_by   TEXT    NOT NULL,
  created_at   TEXT    NOT NULL,
  created_rev  INTEGER NOT NULL,
  modified_rev INTEGER NOT NULL,
  UNIQUE (path, raft_node_id, unix_user, unix_group, systemd_unit),
  CHECK (unix_user <> '' OR unix_group <> '' OR systemd_unit <> ''),
  CONSTRAINT size_workloads_path CHECK (length(CAST(path AS BLOB)) <= 1024),
  CONSTRAINT size_workloads_unix_user CHECK (length(CAST(unix_user AS BLOB)) <= 64),
  CONSTRAINT size_workloads_unix_group CHECK (length(CAST(unix_group AS BLOB)) <= 64),
  CONSTRAINT size_workloads_systemd_unit CHECK (length(CAST(systemd_unit AS BLOB)) <= 255),
  CONSTRAINT size_workloads_hosts CHECK (length(CAST(hosts AS BLOB)) <= 4096),
  CONSTRAINT size_workloads_created_by CHECK (length(CAST(created_by AS BLOB)) <= 1200)
) STRICT, WITHOUT ROWID;

-- Trust bundles of other clusters, as these have told them, in SPIFFE's format.
CREATE TABLE peer_bundles (
  peering_id   TEXT PRIMARY KEY,
  trust_domain TEXT NOT NULL UNIQUE,
  bundle       TEXT NOT NULL CHECK (json_valid(bundle)),
  received_at  TEXT NOT NULL,
  modified_rev INTEGER NOT NULL,
  CONSTRAINT size_peer_bundles_trust_domain CHECK (length(CAST(trust_domain AS BLOB)) <= 255),
  CONSTRAINT size_peer_bundles_bundle CHECK (length(CAST(bundle AS BLOB)) <= 65536)
) STRICT, WITHOUT ROWID;

CREATE VIEW v_workloads AS
SELECT w.path, CASE w.raft_node_id WHEN 0 THEN 'any' ELSE w.raft_node_id END AS node, w.unix_user AS user, w.unix_group AS "group",
       w.systemd_unit AS unit, w.hosts, w.created_by, w.created_at, w.id
FROM workloads w ORDER BY w.path, w.raft_node_id, w.id;
