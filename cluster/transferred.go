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

// transferNote is what a member that has handed leadership over tells the one that leads now.
type transferNote struct {
	To       uint64 `json:"to"`
	Accessor string `json:"accessor"`
	Name     string `json:"name"`
	Remote   string `json:"remote"`
	Request  string `json:"request"`
}

// Transferred finds out who leads after a hand-over to a member, and has it note the outcome in the audit: a member
// that answers this accepts writes. It blocks until one does or ctx ends, and then returns the error of the last try.
func (c *Cluster) Transferred(ctx context.Context, actor store.Actor, to uint64) (leads uint64, err error) {
	note, err := json.Marshal(transferNote{to, actor.Accessor, actor.Name, actor.Remote, actor.RequestID})
	if err != nil {
		return 0, err
	}
	for {
		if leads, err = c.Store.AwaitLeader(ctx); err != nil {
			return 0, err
		}
		if leads == c.Store.NodeID() {
			actor.IdempotencyKey, actor.RequestHash = "", ""
			err = c.Store.Audit.NoteTransferred(ctx, actor, to)
		} else {
			err = c.Transport.Call(ctx, http.MethodPost, leads, pathTransferred, bytes.NewReader(note), nil)
		}
		if err == nil {
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
	serveLeader(c.member, w, r, func(ctx context.Context, _ uint64) (struct{}, error) {
		return struct{}{}, c.Store.Audit.NoteTransferred(ctx, actor, note.To)
	})
}
