INSERT INTO join_tokens (id, format, raft_node_id, mode, labels, bind_cidr, bind_name, bind_key, max_uses, created_by, created_at, expires_at, created_rev, modified_rev) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
INSERT INTO audit (revision, seq, at, actor, node_id, remote, action, object, outcome, detail, request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
UPDATE cluster SET revision = ?, batch_id = ?
