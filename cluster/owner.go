package cluster

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

// The owner of a member's files may always get back in: who can read its transport key is let in by the member itself,
// over the cluster listener. What was asked of a member that does not run, or knows no leader, waits in a file beside.

const (
	pathOwnerToken   = "/internal/owner/token"   // the owner of the files, to its own member
	pathRecoverToken = "/internal/recover-token" // that member, to the leader
	ownerPrefix      = "recover-token-"
	ownerEvery       = time.Second
	ownerFiles       = 16 // requests that may wait
	maxOwnerRequest  = 4 << 10
)

// TokenRequest asks for a management token. The secret stays with who asks; only its hash is written.
type TokenRequest struct {
	ID   string `json:"id"`
	Hash string `json:"hash"` // SHA-256 of the secret, lower hex
	Host string `json:"host"` // where it was asked for
	User string `json:"user"`
}

func (q *TokenRequest) check() error {
	if raw, err := hex.DecodeString(q.Hash); err != nil || len(raw) != 32 {
		return errors.New("hash must be a SHA-256 in hex")
	}
	if q.ID == "" || len(q.ID) > 64 || len(q.Host) > 255 || len(q.User) > 255 {
		return errors.New("id, host and user must be at most 64, 255 and 255 bytes long, and id must not be empty")
	}
	return nil
}

// recoverToken has the leader make the token. It blocks until there is a leader or ctx ends.
func (c *Cluster) recoverToken(ctx context.Context, q TokenRequest) error {
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

func (c *Cluster) makeToken(ctx context.Context, nodeID uint64, q TokenRequest) error {
	c.log.Warn("the owner of a member's files makes a management token",
		"node", nodeID, "host", q.Host, "user", q.User, "token", q.ID)
	how := fmt.Sprintf("management token made on host %s by user %s, as the owner of the files of node %d", q.Host, q.User, nodeID)
	return c.Store.RecoverAPIToken(ctx, ownerOf(nodeID), q.ID, q.Hash, how)
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
	c.serveToken(w, r, func(ctx context.Context, _ uint64, q TokenRequest) error { return c.recoverToken(ctx, q) })
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

func (c *Cluster) serveToken(w http.ResponseWriter, r *http.Request, do func(context.Context, uint64, TokenRequest) error) {
	var q TokenRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOwnerRequest)).Decode(&q); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	if err := q.check(); err != nil {
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
		names, _ := filepath.Glob(c.Dir.file(ownerPrefix + "*.json"))
		for i, name := range names {
			if i == ownerFiles {
				break
			}
			q, err := readTokenRequest(name)
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

// readTokenRequest reads a request that nobody but the owner of the files, or root, can have written.
func readTokenRequest(name string) (q TokenRequest, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return q, errors.New("its file cannot be opened")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return q, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	ours := ok && (owner.Uid == 0 || int(owner.Uid) == os.Geteuid())
	if !ours || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > maxOwnerRequest {
		return q, errors.New("its file must be a regular one, of this member's user, and 0600")
	}
	if err := json.NewDecoder(f).Decode(&q); err != nil {
		return q, errors.New("its file cannot be read")
	}
	return q, q.check()
}
