package datadir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"muster/cluster/transport"
	"muster/store"
)

// Owned is the data directory of a member, used by the owner of its files while the member may run.
type Owned struct {
	dir  *Dir
	node *Node
}

// OpenOwned opens the directory of a member for the owner of its files, who alone can read the member's transport key.
func OpenOwned(path string) (*Owned, error) {
	d := &Dir{Path: path}
	n, err := d.Node()
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, fmt.Errorf("%s is not the data directory of a member: it has no node.json", path)
	}
	if err := d.CheckRemoved(n); err != nil {
		return nil, err
	}
	info, err := os.Stat(d.file(transportKey))
	if err != nil {
		return nil, dirError(path, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if euid := os.Geteuid(); !ok || euid != 0 && euid != int(st.Uid) {
		return nil, fmt.Errorf("%s belongs to another user: only the owner of a member's files, or root, may use it", path)
	}
	return &Owned{d, n}, nil
}

// NodeID returns the member's number.
func (o *Owned) NodeID() uint64 { return o.node.NodeID }

// Running reports whether a process uses the directory.
func (o *Owned) Running() bool {
	f, err := os.OpenFile(o.dir.file(lockFile), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// transport connects to the member with the member's own identity.
func (o *Owned) transport() (*transport.Transport, error) {
	creds, err := o.dir.Credentials(o.node)
	if err != nil {
		return nil, err
	}
	book := transport.Table(func(uint64) (string, bool) { return o.node.RaftAddress, true })
	return transport.New(creds, book, func(uint64) error { return nil }, slog.New(slog.DiscardHandler)), nil
}

// RefusedError is the rejection of a request that would be rejected again.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// MakeToken makes the running member create a management token, through the leader. It returns a *RefusedError when
// that is rejected, and another error when the member does not run, knows no leader or does not answer; the caller can
// then use Leave.
func (o *Owned) MakeToken(ctx context.Context, q TokenRequest) error {
	t, err := o.transport()
	if err != nil {
		return err
	}
	defer t.Close()
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	err = t.Call(ctx, http.MethodPost, o.node.NodeID, PathOwnerToken, bytes.NewReader(body), nil)
	var status *transport.StatusError
	if errors.As(err, &status) && status.Final() {
		return &RefusedError{status.Text}
	}
	return err
}

// Leave writes the request into the directory. The member carries it out as soon as it runs and there is a leader.
func (o *Owned) Leave(q TokenRequest) error {
	data, err := json.Marshal(q)
	if err != nil {
		return err
	}
	name := requestPrefix + q.ID + ".json"
	if err := o.dir.write(name, append(data, '\n'), 0o600); err != nil {
		return err
	}
	// Root writes for the user that the member runs as.
	info, err := os.Stat(o.dir.file(transportKey))
	if err != nil {
		return dirError(o.dir.Path, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && st.Uid != 0 {
		return os.Chown(o.dir.file(name), int(st.Uid), int(st.Gid))
	}
	return nil
}

// BackupStopped writes an archive of the mirror to w while the member does not run, and prevents its start meanwhile.
// recipient is as in the API, or empty.
func (o *Owned) BackupStopped(w io.Writer, recipient, binary string) error {
	lock, err := os.OpenFile(o.dir.file(lockFile), os.O_RDWR, 0)
	if err != nil {
		return dirError(o.dir.Path, err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.New("the member has been started meanwhile; try again")
	}
	own, err := o.dir.OwnIdentity()
	if err != nil {
		return err
	}
	if err := store.MirrorArchive(w, o.dir.file(MirrorFile), o.node.NodeID, own, recipient, binary); err != nil {
		return fmt.Errorf("the mirror of this directory: %w", err)
	}
	return nil
}

// Backup writes an archive of the state to w, as the running member, and returns its size in bytes. stale: of the
// member's own state. recipient is as in the API, or empty.
func (o *Owned) Backup(ctx context.Context, w io.Writer, stale bool, recipient, host, user string) (int64, error) {
	t, err := o.transport()
	if err != nil {
		return 0, err
	}
	defer t.Close()
	query := url.Values{"host": {host}, "user": {user}, "recipient": {recipient}}
	if stale {
		query.Set("stale", "1")
	}
	resp, err := t.Get(ctx, o.node.NodeID, PathOwnerBackup+"?"+query.Encode())
	if err != nil {
		return 0, fmt.Errorf("the member of this directory cannot be asked: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return 0, fmt.Errorf("the member refuses: %s", strings.TrimSpace(string(text)))
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(w, sum), resp.Body)
	if err == nil && "sha-256="+base64.StdEncoding.EncodeToString(sum.Sum(nil)) != resp.Header.Get("Digest") {
		err = errors.New("its digest does not match")
	}
	if err != nil {
		return size, fmt.Errorf("the backup did not arrive whole: %w", err)
	}
	return size, nil
}
