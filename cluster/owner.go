package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/internal/timing"
	"muster/store"
)

// An operator with access to a member's files (its owner) can always recover access: the member accepts connections
// with its own transport key on the cluster listener. Requests to a member that does not run, or has no leader, wait in
// a file.

const (
	pathRecoverToken = "/internal/recover-token" // that member, to the leader
	ownerEvery       = time.Second
	ownerFiles       = 16 // maximum number of waiting requests
)

// owner serves the owner of this member's files.
type owner struct {
	*member
	archives chan struct{} // limits concurrent backups
}

// recoverToken asks the leader to create the token. It blocks until there is a leader or ctx ends.
func (o *owner) recoverToken(ctx context.Context, q datadir.TokenRequest) error {
	leader, err := o.Store.AwaitLeader(ctx)
	if err != nil {
		return err
	}
	if leader == o.Store.NodeID() {
		return o.makeToken(ctx, leader, q)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return o.Transport.Call(ctx, http.MethodPost, leader, pathRecoverToken, bytes.NewReader(body), nil)
}

func (o *owner) makeToken(ctx context.Context, nodeID uint64, q datadir.TokenRequest) error {
	want := q.Wanted()
	o.log.Warn("the owner of a member's files makes an API token",
		"node", nodeID, "host", q.Host, "user", q.User, "token", q.ID, "scope", want.Scope)
	how := fmt.Sprintf("%s token made on host %s by user %s, as the owner of the files of node %d", want.Scope, q.Host,
		q.User, nodeID)
	return o.Store.APITokens.Recover(ctx, ownerOf(nodeID), want, how)
}

// ownerOf returns the actor for the owner of a member's files.
func ownerOf(nodeID uint64) store.Actor {
	return store.Actor{Name: "owner of the files of " + transport.HostOf(nodeID), NodeID: nodeID}
}

// serveOwnerToken serves a request authenticated by this member's own key.
func (o *owner) serveOwnerToken(w http.ResponseWriter, r *http.Request) {
	if err := o.ownOnly(transport.MemberID(r.Context())); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	o.serveToken(w, r, func(ctx context.Context, _ uint64, q datadir.TokenRequest) error { return o.recoverToken(ctx, q) })
}

func (o *owner) serveRecoverToken(w http.ResponseWriter, r *http.Request) {
	o.serveToken(w, r, o.makeToken)
}

// ownOnly rejects every member but this one.
func (o *owner) ownOnly(nodeID uint64) error {
	if nodeID != o.Store.NodeID() {
		return errors.New("only the owner of this member's files may ask for that")
	}
	return nil
}

func (o *owner) serveToken(w http.ResponseWriter, r *http.Request,
	do func(context.Context, uint64, datadir.TokenRequest) error) {
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

// run carries out the requests that the owner left in the directory, as soon as there is a leader.
func (o *owner) run(ctx context.Context) {
	for timing.Rest(ctx, ownerEvery) {
		for i, name := range o.Dir.TokenRequests() {
			if i == ownerFiles {
				break
			}
			q, err := datadir.ReadTokenRequest(name)
			if err != nil {
				o.log.Warn("a request for a token is not carried out", "err", err)
				_ = os.Remove(name)
				continue
			}
			tctx, cancel := context.WithTimeout(ctx, syncTimeout)
			err = o.recoverToken(tctx, q)
			cancel()
			var status *transport.StatusError
			var refusal *store.Refusal
			final := errors.As(err, &refusal) || errors.As(err, &status) && status.Final()
			if err != nil && !final {
				break // later
			}
			if err != nil {
				o.log.Warn("a request for a token was refused", "err", err)
			}
			if err := os.Remove(name); err != nil {
				o.log.Warn("a request for a token that was carried out could not be deleted", "err", err)
			}
		}
	}
}

const (
	pathBackup = "/internal/backup" // that member, from the leader
)

// serveOwnerBackup serves an archive to the owner of this member's files: of the leader's state, or with stale of this
// member's.
func (o *owner) serveOwnerBackup(w http.ResponseWriter, r *http.Request) {
	if err := o.ownOnly(transport.MemberID(r.Context())); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if r.URL.Query().Get("stale") != "" {
		q := r.URL.Query()
		o.log.Warn("the owner of this member's files makes a backup of its replica", "host", q.Get("host"),
			"user", q.Get("user"))
		o.archive(w, r, store.Stale)
		return
	}
	leader, err := o.Store.AwaitLeader(r.Context())
	if err != nil {
		http.Error(w, "there is no leader; use --stale for this member's replica", http.StatusServiceUnavailable)
		return
	}
	if leader == o.Store.NodeID() {
		o.serveBackup(w, r)
		return
	}
	resp, err := o.Transport.Get(r.Context(), leader, pathBackup+"?"+r.URL.RawQuery)
	if err != nil {
		http.Error(w, "the leader does not answer; use --stale for this member's replica", http.StatusServiceUnavailable)
		return
	}
	defer resp.Body.Close()
	for _, h := range []string{"Content-Type", "Content-Length", "Digest"} {
		if v := resp.Header.Get(h); v != "" {
			w.Header().Set(h, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// serveBackup serves a backup to a member, for its owner. It is audited before the first byte is sent.
func (o *owner) serveBackup(w http.ResponseWriter, r *http.Request) {
	id, q := transport.MemberID(r.Context()), r.URL.Query()
	how := fmt.Sprintf("backup saved on host %.255s by user %.255s, as the owner of the files of node %d", q.Get("host"),
		q.Get("user"), id)
	err := o.Store.Audit.NoteBackup(r.Context(), ownerOf(id), how)
	if err != nil {
		http.Error(w, "the leader cannot do it now", http.StatusServiceUnavailable)
		return
	}
	o.archive(w, r, store.Linearisable)
}

func (o *owner) archive(w http.ResponseWriter, r *http.Request, from store.Consistency) {
	select { // each one needs room for a copy of the database
	case o.archives <- struct{}{}:
		defer func() { <-o.archives }()
	case <-r.Context().Done():
		return
	}
	var recipients []string
	if recipient := r.URL.Query().Get("recipient"); recipient != "" {
		recipients = append(recipients, recipient)
	}
	f, err := o.Store.Archives.SnapshotFile(r.Context(), from, recipients, o.Self.BinaryVersion)
	var refusal *store.Refusal
	switch {
	case errors.As(err, &refusal):
		http.Error(w, refusal.Message, http.StatusBadRequest)
		return
	case err != nil:
		http.Error(w, "no backup can be made now", http.StatusServiceUnavailable)
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/x-gzip")
	h.Set("Content-Length", strconv.FormatInt(f.Size, 10))
	h.Set("Digest", "sha-256="+base64.StdEncoding.EncodeToString(f.SHA256))
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(w, f)
}
