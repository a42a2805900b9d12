package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

const pathTransferred = "/internal/transferred"

// transferNote is the message of a member that has handed leadership over to the current leader.
type transferNote struct {
	To       uint64 `json:"to"`
	Accessor string `json:"accessor"`
	Name     string `json:"name"`
	Remote   string `json:"remote"`
	Request  string `json:"request"`
	Since    uint64 `json:"since"` // a revision before the hand-over
}

// transferOutcome is the answer: whether the member has led since then.
type transferOutcome struct {
	Took bool `json:"took"`
}

// Transferred determines the outcome of a hand-over to a member that began after revision since, and makes the current
// leader record it in the audit, which proves that the leader accepts writes. It returns to if that member has led
// since, even if leadership has moved on, or else the current leader. It blocks until a leader answers or ctx ends, and
// then returns the last error.
func (c *Cluster) Transferred(ctx context.Context, actor store.Actor, to, since uint64) (leads uint64, err error) {
	note, err := json.Marshal(transferNote{
		To:       to,
		Accessor: actor.Accessor,
		Name:     actor.Name,
		Remote:   actor.Remote,
		Request:  actor.RequestID,
		Since:    since,
	})
	if err != nil {
		return 0, err
	}
	for {
		if leads, err = c.Store.AwaitLeader(ctx); err != nil {
			return 0, err
		}
		var out transferOutcome
		if leads == c.Store.NodeID() {
			actor.IdempotencyKey, actor.RequestHash = "", ""
			out.Took, err = c.Store.Audit.NoteTransferred(ctx, actor, to, since)
		} else {
			err = c.Transport.Call(ctx, http.MethodPost, leads, pathTransferred, bytes.NewReader(note), &out)
		}
		switch {
		case err == nil && out.Took:
			return to, nil
		case err == nil:
			return leads, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return 0, err
		}
	}
}

func (c *Cluster) serveTransferred(w http.ResponseWriter, r *http.Request) {
	var note transferNote
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&note); err != nil {
		http.Error(w, "the note cannot be read", http.StatusBadRequest)
		return
	}
	actor := store.Actor{
		Accessor:  note.Accessor,
		Name:      note.Name,
		Remote:    note.Remote,
		RequestID: note.Request,
		NodeID:    transport.MemberID(r.Context()),
	}
	serveLeader(c.member, w, r, func(ctx context.Context, _ uint64) (transferOutcome, error) {
		took, err := c.Store.Audit.NoteTransferred(ctx, actor, note.To, note.Since)
		return transferOutcome{took}, err
	})
}

// maxPreparation bounds the size of a preparation in bytes; leaders only send the newest batches.
const maxPreparation = 16 << 20

// servePrepare prepares this member to take over leadership.
func (c *Cluster) servePrepare(w http.ResponseWriter, r *http.Request) {
	var p store.Preparation
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPreparation)).Decode(&p); err != nil {
		http.Error(w, "the preparation cannot be read", http.StatusBadRequest)
		return
	}
	revision, err := c.Store.PrepareToLead(r.Context(), transport.MemberID(r.Context()), p)
	if err != nil {
		c.log.Debug("prepare to lead", "for", transport.MemberID(r.Context()), "err", err)
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	writeJSON(w, transport.Prepared{Revision: revision})
}
