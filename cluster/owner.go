package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/store"
)

// The owner of a member's files may always get back in: who can read its transport key is let in by the member itself,
// over the cluster listener. What was asked of a member that does not run, or knows no leader, waits in a file beside.

const (
	pathRecoverToken = "/internal/recover-token" // that member, to the leader
	ownerEvery       = time.Second
	ownerFiles       = 16 // requests that may wait
)

// recoverToken has the leader make the token. It blocks until there is a leader or ctx ends.
func (c *Cluster) recoverToken(ctx context.Context, q datadir.TokenRequest) error {
	leader, err := c.Store.AwaitLeader(ctx)
	if err != nil {
		return err
	}
	if leader == c.Store.NodeID() {
		return c.makeToken(ctx, leader, q)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return c.Transport.Call(ctx, http.MethodPost, leader, pathRecoverToken, bytes.NewReader(body), nil)
}

func (c *Cluster) makeToken(ctx context.Context, nodeID uint64, q datadir.TokenRequest) error {
	c.log.Warn("the owner of a member's files makes a management token",
		"node", nodeID, "host", q.Host, "user", q.User, "token", q.ID)
	how := fmt.Sprintf("management token made on host %s by user %s, as the owner of the files of node %d", q.Host, q.User, nodeID)
	return c.Store.APITokens.Recover(ctx, ownerOf(nodeID), q.ID, q.Hash, how)
}

// ownerOf is the actor of what the owner of a member's files does.
func ownerOf(nodeID uint64) store.Actor {
	return store.Actor{Name: "owner of the files of " + transport.HostOf(nodeID), NodeID: nodeID}
}

// serveOwnerToken takes a request of who holds this member's own key.
func (c *Cluster) serveOwnerToken(w http.ResponseWriter, r *http.Request) {
	if err := c.ownOnly(transport.MemberID(r.Context())); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	c.serveToken(w, r, func(ctx context.Context, _ uint64, q datadir.TokenRequest) error { return c.recoverToken(ctx, q) })
}

func (c *Cluster) serveRecoverToken(w http.ResponseWriter, r *http.Request) {
	c.serveToken(w, r, c.makeToken)
}

// ownOnly refuses every member but this one.
func (c *Cluster) ownOnly(nodeID uint64) error {
	if nodeID != c.Store.NodeID() {
		return errors.New("only the owner of this member's files may ask for that")
	}
	return nil
}

func (c *Cluster) serveToken(w http.ResponseWriter, r *http.Request, do func(context.Context, uint64, datadir.TokenRequest) error) {
	var q datadir.TokenRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, datadir.MaxTokenRequest)).Decode(&q); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	if err := q.Check(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 4*time.Second)
	defer cancel()
	err := do(ctx, transport.MemberID(r.Context()), q)
	var refusal *store.Refusal
	switch {
	case errors.As(err, &refusal):
		http.Error(w, refusal.Message, http.StatusConflict)
	case errors.Is(err, store.ErrNotLeader):
		http.Error(w, err.Error(), http.StatusMisdirectedRequest)
	case err != nil:
		http.Error(w, "there is no leader that could do it now", http.StatusServiceUnavailable)
	default:
		writeJSON(w, struct{}{})
	}
}

// ownerRequests carries out what the owner of the files has left in the directory, as soon as there is a leader.
func (c *Cluster) ownerRequests(ctx context.Context) {
	for rest(ctx, ownerEvery) {
		for i, name := range c.Dir.TokenRequests() {
			if i == ownerFiles {
				break
			}
			q, err := datadir.ReadTokenRequest(name)
			if err != nil {
				c.log.Warn("a request for a token is not carried out", "err", err)
				_ = os.Remove(name)
				continue
			}
			tctx, cancel := context.WithTimeout(ctx, syncTimeout)
			err = c.recoverToken(tctx, q)
			cancel()
			var status *transport.StatusError
			var refusal *store.Refusal
			final := errors.As(err, &refusal) || errors.As(err, &status) && status.Final()
			if err != nil && !final {
				break // later
			}
			if err != nil {
				c.log.Warn("a request for a token was refused", "err", err)
			}
			if err := os.Remove(name); err != nil {
				c.log.Warn("a request for a token that was carried out could not be deleted", "err", err)
			}
		}
	}
}

// rest sleeps and tells whether ctx still goes on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
