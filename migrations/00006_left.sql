-- +goose Up

-- When a member said that its process ends in order; null once it has announced itself again. One that does not answer
-- and has said so has left, any other one is down.
ALTER TABLE members ADD COLUMN left_at TEXT;

DROP VIEW v_members;
CREATE VIEW v_members AS
SELECT m.raft_node_id AS node, m.name,
       CASE m.raft_role WHEN '' THEN 'member' ELSE m.raft_role END AS role,
       CASE WHEN m.raft_node_id = c.leader_node_id THEN 'leader' ELSE '' END AS leader,
       m.mode, m.drain_state AS drain, m.raft_address, m.api_address,
       m.binary_version AS version, m.joined_at, m.id, coalesce(m.left_at, '') AS left_at
FROM members m, cluster c ORDER BY m.raft_node_id;
