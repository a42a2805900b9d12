-- +goose Up

-- The backups that members make by themselves: one row for each, with the member that writes or holds the file.
CREATE TABLE backups (
  id             TEXT    PRIMARY KEY,
  cause          TEXT    NOT NULL CHECK (cause IN ('schedule', 'request')),
  state          TEXT    NOT NULL CHECK (state IN ('waiting', 'running', 'good', 'failed')),
  raft_node_id   INTEGER NOT NULL DEFAULT 0,   -- that writes or holds it; 0 while nobody does
  tried          TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(tried)), -- members that were given up
  name           TEXT    NOT NULL DEFAULT '',  -- of the file
  target         TEXT    NOT NULL DEFAULT '',  -- where it is
  recipients     INTEGER NOT NULL DEFAULT 0,   -- for how many it is encrypted
  started_at     TEXT    NOT NULL,
  finished_at    TEXT,
  size           INTEGER NOT NULL DEFAULT 0,   -- bytes
  sha256         TEXT    NOT NULL DEFAULT '',  -- of the file, in hexadecimal digits
  state_revision INTEGER NOT NULL DEFAULT 0,   -- that the state in it has
  reason         TEXT    NOT NULL DEFAULT '',  -- why it failed, or why members were given up
  created_rev    INTEGER NOT NULL,
  modified_rev   INTEGER NOT NULL,
  CONSTRAINT size_backups_target CHECK (length(CAST(target AS BLOB)) <= 1024),
  CONSTRAINT size_backups_reason CHECK (length(CAST(reason AS BLOB)) <= 2048)
) STRICT;

-- Only one is being made at a time.
CREATE UNIQUE INDEX backups_active ON backups ((1)) WHERE state IN ('waiting', 'running');

CREATE VIEW v_backups AS
SELECT b.id, b.state, b.started_at, coalesce(b.finished_at, '') AS finished_at,
       CASE WHEN b.raft_node_id = 0 THEN '' WHEN m.raft_node_id IS NULL THEN 'node ' || b.raft_node_id || ' (removed)'
            ELSE m.name END AS member,
       b.size, b.state_revision AS revision, rtrim(b.target, '/') || '/' || b.name AS file, b.reason
FROM backups b LEFT JOIN members m USING (raft_node_id);
