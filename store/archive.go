package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"muster/certs"
	"muster/internal/sumtar"
)

// Names in a snapshot archive: a gzipped tar as in the Raft operator API (reference nomad_raft, section 4).
// archiveState is the SQLite file of the whole state; archiveKeys, which is optional, has the data-encryption keys
// wrapped for recipients that are not members.
const (
	archiveMeta  = "meta.json"
	archiveState = "state.bin"
	archiveKeys  = "keys.json"
	archiveSums  = sumtar.Sums

	maxArchiveMeta = 1 << 20
)

// ArchiveMeta is meta.json.
type ArchiveMeta struct {
	ID        string // of the snapshot: cluster and revision
	Version   int    // of the archive's format
	Index     uint64 // revision of the state
	Term      uint64 // epoch of the state
	Size      int64  // of state.bin
	CreatedAt time.Time
	ClusterID string
	Schema    int64
	Binary    string
	NodeID    uint64 // the member that wrote it
	Members   []ArchiveMember
}

// ArchiveMember is a member at the time of the snapshot.
type ArchiveMember struct {
	NodeID  uint64
	ID      string
	Name    string
	Role    Role
	Address string
}

// ArchiveKey is one generation of the data-encryption key, wrapped for a recipient (age).
type ArchiveKey struct {
	Generation uint64
	Recipient  string
	Wrap       []byte
}

const archiveVersion = 1

func wrapKeys(deks map[uint64]certs.DEK, recipient string) (list []ArchiveKey, err error) {
	for generation, dek := range deks {
		wrap, err := certs.Wrap(dek[:], recipient)
		if err != nil {
			return nil, err
		}
		list = append(list, ArchiveKey{generation, recipient, wrap})
	}
	if len(list) == 0 {
		return nil, errNoKey
	}
	return list, nil
}

// describe fills in the fields that the state determines.
func describe(path string) (m ArchiveMeta, err error) {
	o, err := openFile(path)
	if err != nil {
		return m, err
	}
	defer o.Close()
	v := viewOf(o)
	c, founded, err := v.Cluster()
	if err != nil || !founded {
		return m, errors.Join(err, ErrNoLeader)
	}
	info, err := os.Stat(path)
	if err != nil {
		return m, err
	}
	m = ArchiveMeta{
		ID:        fmt.Sprintf("%s-%d", c.ID, c.Revision),
		Version:   archiveVersion,
		Index:     c.Revision,
		Term:      c.Epoch,
		Size:      info.Size(),
		ClusterID: c.ID,
	}
	if m.Schema, err = v.SchemaVersion(); err != nil {
		return m, err
	}
	m.Members, err = collect(v, func(rows *sql.Rows) (x ArchiveMember, err error) {
		err = rows.Scan(&x.NodeID, &x.ID, &x.Name, (*string)(&x.Role), &x.Address)
		return x, err
	}, "SELECT raft_node_id, id, name, raft_role, raft_address FROM members ORDER BY raft_node_id")
	return m, err
}

// WriteArchive writes an archive of a state file.
func WriteArchive(w io.Writer, meta ArchiveMeta, state string, keys []ArchiveKey) error {
	f, err := os.Open(state)
	if err != nil {
		return err
	}
	defer f.Close()
	out, err := sumtar.NewWriter(w, meta.CreatedAt)
	if err != nil {
		return err
	}
	if err := out.AddJSON(archiveMeta, meta); err != nil {
		return err
	}
	if err := out.Add(archiveState, meta.Size, f); err != nil {
		return err
	}
	if len(keys) > 0 {
		if err := out.AddJSON(archiveKeys, keys); err != nil {
			return err
		}
	}
	return out.Close()
}

// Archive is an archive that was read and whose checksums are right.
type Archive struct {
	Meta  ArchiveMeta
	State string // file
	Keys  []ArchiveKey
	dir   string
}

// Close removes the files that ReadArchive created.
func (a *Archive) Close() error { return os.RemoveAll(a.dir) }

// maxWrap is the maximum size of a wrap in bytes; genuine ones are smaller.
const maxWrap = 4 << 10

// Unlock opens the keys wrapped for any of the identities: in the archive's key file, or in the state for members of
// that time.
func (a *Archive) Unlock(ctx context.Context, identities ...*age.X25519Identity) (map[uint64]certs.DEK, error) {
	return unlock(ctx, a.State, identities, a.Keys, "SELECT generation, wrap FROM dek_wraps ORDER BY generation")
}

// unlock opens, with the identities, the keys that a query finds in the state at path, and more.
func unlock(ctx context.Context, path string, identities []*age.X25519Identity, more []ArchiveKey, query string,
	args ...any) (map[uint64]certs.DEK, error) {
	out := map[uint64]certs.DEK{}
	o, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	keys, err := collect(viewOf(o), func(rows *sql.Rows) (k ArchiveKey, err error) {
		err = rows.Scan(&k.Generation, &k.Wrap)
		return k, err
	}, query, args...)
	for _, k := range append(keys, more...) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(k.Wrap) > maxWrap {
			continue
		}
		for _, id := range identities {
			if plain, err := certs.Unwrap(k.Wrap, id); err == nil && len(plain) == len(certs.DEK{}) {
				out[k.Generation] = certs.DEK(plain)
			}
		}
	}
	return out, err
}

// Rewrap wraps the archive's keys for other recipients.
func (a *Archive) Rewrap(deks map[uint64]certs.DEK, recipients []string) error {
	a.Keys = nil
	for _, r := range recipients {
		list, err := wrapKeys(deks, r)
		if err != nil {
			return err
		}
		a.Keys = append(a.Keys, list...)
	}
	return nil
}

// ownKeys opens the data-encryption keys in the state at path with a member's own identity and wraps them for each
// recipient ("age1…"). Any member can do so; these are the keys that the state is sealed under.
func ownKeys(ctx context.Context, path string, nodeID uint64, own *age.X25519Identity,
	recipients []string) ([]ArchiveKey, error) {
	if len(recipients) == 0 {
		return nil, nil
	}
	deks, err := unlock(ctx, path, []*age.X25519Identity{own}, nil,
		"SELECT generation, wrap FROM dek_wraps WHERE raft_node_id = ?", nodeID)
	if err != nil {
		return nil, err
	}
	a := &Archive{}
	err = a.Rewrap(deks, recipients)
	return a.Keys, err
}

func checkRecipients(recipients []string) error {
	for _, r := range recipients {
		if _, err := certs.PublicKey(r); err != nil {
			return refuse(Invalid, "recipient must be an age X25519 recipient (age1…)")
		}
	}
	return nil
}

// Snapshot writes an archive of the state to w: the leader's state, or with Stale the local replica's, which needs
// neither leader nor quorum. It includes the data-encryption keys for each of the recipients ("age1…"). It needs disk
// space for one copy of the database in the data directory and little memory, and does not block commits.
func (ar Archives) Snapshot(ctx context.Context, c Consistency, w io.Writer, recipients []string,
	binary string) (ArchiveMeta, error) {
	var meta ArchiveMeta
	if err := checkRecipients(recipients); err != nil {
		return meta, err
	}
	f, err := os.CreateTemp(ar.s.cfg.Dir, temporary)
	if err != nil {
		return meta, err
	}
	f.Close()
	os.Remove(f.Name())
	defer os.Remove(f.Name())
	if err := ar.s.Copy(ctx, c, f.Name()); err != nil {
		return meta, err
	}
	if meta, err = describe(f.Name()); err != nil {
		return meta, err
	}
	keys, err := ownKeys(ctx, f.Name(), ar.s.cfg.NodeID, ar.s.cfg.Identity, recipients)
	if err != nil {
		return meta, err
	}
	meta.NodeID, meta.CreatedAt, meta.Binary = ar.s.cfg.NodeID, ar.s.cfg.Now().UTC().Truncate(time.Second), binary
	return meta, WriteArchive(w, meta, f.Name(), keys)
}

// MirrorArchive writes an archive of the mirror of member nodeID, which must not be running, to w. With a recipient
// ("age1…") it includes the data-encryption keys that the member's own identity opens.
func MirrorArchive(w io.Writer, path string, nodeID uint64, own *age.X25519Identity, recipient, binary string) error {
	meta, err := describe(path)
	if err != nil {
		return err
	}
	meta.NodeID, meta.CreatedAt, meta.Binary = nodeID, time.Now().UTC().Truncate(time.Second), binary
	var recipients []string
	if recipient != "" {
		recipients = []string{recipient}
	}
	if err := checkRecipients(recipients); err != nil {
		return err
	}
	keys, err := ownKeys(context.Background(), path, nodeID, own, recipients)
	if err != nil {
		return err
	}
	return WriteArchive(w, meta, path, keys)
}

// SnapshotFile is an archive in an unlinked file: closing it frees everything.
type SnapshotFile struct {
	*os.File
	Size   int64
	SHA256 []byte
	Meta   ArchiveMeta
}

// SnapshotFile is Snapshot into a file, so that the digest is known before the first byte is sent.
func (ar Archives) SnapshotFile(ctx context.Context, c Consistency, recipients []string,
	binary string) (*SnapshotFile, error) {
	f, err := os.CreateTemp(ar.s.cfg.Dir, temporary)
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	sum := sha256.New()
	out := &SnapshotFile{File: f}
	if out.Meta, err = ar.Snapshot(ctx, c, io.MultiWriter(f, sum), recipients, binary); err != nil {
		f.Close()
		return nil, err
	}
	out.SHA256 = sum.Sum(nil)
	if out.Size, err = f.Seek(0, io.SeekCurrent); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return out, nil
}

// Read reads an archive into the data directory; see the function of the same name.
func (ar Archives) Read(ctx context.Context, r io.Reader, limits ArchiveLimits) (*Archive, error) {
	return ReadArchive(ctx, r, ar.s.cfg.Dir, limits)
}

// temporary is the pattern of the temporary files of snapshots and restores. Open removes those of a killed process.
const temporary = ".snapshot-*.tmp"

func removeTemporary(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, temporary))
	for _, name := range left {
		_ = os.RemoveAll(name)
	}
}
