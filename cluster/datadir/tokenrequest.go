package datadir

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"muster/store"
)

// Paths of requests that the owner of a member's files sends to that member over its cluster listener.
const (
	PathOwnerToken  = "/internal/owner/token"
	PathOwnerBackup = "/internal/owner/backup"
)

// MaxTokenRequest is the maximum size of a token request in bytes.
const MaxTokenRequest = 4 << 10

const requestPrefix = "recover-token-"

// TokenRequest requests an API token. The secret stays with the caller; only its hash is written.
type TokenRequest struct {
	ID    string `json:"id"`
	Hash  string `json:"hash"` // SHA-256 of the secret, lower hex
	Host  string `json:"host"` // host name of the caller
	User  string `json:"user"`
	Scope string `json:"scope,omitempty"` // empty: management
	TTL   int64  `json:"ttl,omitempty"`   // seconds, at most a day; 0: without end
}

const maxTokenTTL = 24 * 60 * 60 // seconds

// Wanted returns the requested token.
func (q *TokenRequest) Wanted() store.RecoveredToken {
	t := store.RecoveredToken{ID: q.ID, Hash: q.Hash, Scope: q.Scope, TTL: time.Duration(q.TTL) * time.Second}
	if t.Scope == "" {
		t.Scope = store.ScopeManagement
	}
	return t
}

// Check returns the first fault of a request.
func (q *TokenRequest) Check() error {
	if raw, err := hex.DecodeString(q.Hash); err != nil || len(raw) != 32 {
		return errors.New("hash must be a SHA-256 in hex")
	}
	if q.ID == "" || len(q.ID) > 64 || len(q.Host) > 255 || len(q.User) > 255 {
		return errors.New("id, host and user must be at most 64, 255 and 255 bytes long, and id must not be empty")
	}
	if q.TTL < 0 || q.TTL > maxTokenTTL {
		return fmt.Errorf("ttl must be between 0 and %d seconds", maxTokenTTL)
	}
	if q.Scope != "" && !slices.Contains(store.Scopes, q.Scope) {
		return errors.New("scope must be one that an API token can have")
	}
	return nil
}

// TokenRequests lists the files of the requests that the owner of the files has left in the directory.
func (d *Dir) TokenRequests() []string {
	names, _ := filepath.Glob(d.file(requestPrefix + "*.json"))
	return names
}

// ReadTokenRequest reads a request. It rejects a file that other users than the owner of the files or root may have
// written.
func ReadTokenRequest(name string) (q TokenRequest, err error) {
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
	if !ours || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > MaxTokenRequest {
		return q, errors.New("its file must be a regular one, of this member's user, and 0600")
	}
	if err := json.NewDecoder(f).Decode(&q); err != nil {
		return q, errors.New("its file cannot be read")
	}
	return q, q.Check()
}
