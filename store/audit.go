package store

// audit writes the row that says who did what; every mutation has one. Detail must not hold a secret.
func (t *Tx) audit(action, object, detail string) error {
	err := t.exec(`INSERT INTO audit (revision, seq, at, actor, node_id, remote, action, object, outcome, detail, request_id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'ok', ?, ?)`,
		t.Rev, t.nextSeq, t.Now, t.actor.String(), t.actor.NodeID, t.actor.Remote, action, object, detail, t.actor.RequestID)
	if err == nil {
		t.audits = append(t.audits, t.nextSeq)
		t.nextSeq++
	}
	return err
}
