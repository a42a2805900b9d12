package cluster

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"muster/cluster/transport"
	"muster/store"
)

const (
	pathBackup = "/internal/backup" // that member, from the leader
)

// serveOwnerBackup answers who holds this member's own key with an archive: the leader's, or with stale this member's.
func (o *owner) serveOwnerBackup(w http.ResponseWriter, r *http.Request) {
	if err := o.ownOnly(transport.MemberID(r.Context())); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if r.URL.Query().Get("stale") != "" {
		q := r.URL.Query()
		o.log.Warn("the owner of this member's files saves a backup of its replica", "host", q.Get("host"),
			"user", q.Get("user"))
		o.archive(w, r, store.Stale)
		return
	}
	leader, err := o.Store.AwaitLeader(r.Context())
	if err != nil {
		http.Error(w, "there is no leader; with --stale it is what this member has", http.StatusServiceUnavailable)
		return
	}
	if leader == o.Store.NodeID() {
		o.serveBackup(w, r)
		return
	}
	resp, err := o.Transport.Get(r.Context(), leader, pathBackup+"?"+r.URL.RawQuery)
	if err != nil {
		http.Error(w, "the leader cannot be asked; with --stale it is what this member has", http.StatusServiceUnavailable)
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

// serveBackup answers a member, for the owner of its files. The audit has it before the first byte is sent.
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
	var keys []store.ArchiveKey
	var err error
	if recipient := r.URL.Query().Get("recipient"); recipient != "" {
		keys, err = o.Store.Archives.Keys(recipient)
	}
	var f *store.SnapshotFile
	if err == nil {
		f, err = o.Store.Archives.SnapshotFile(r.Context(), from, keys, o.Self.BinaryVersion)
	}
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
