package store

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"time"

	"muster/certs"
)

// ArchiveKeys wraps all generations of the data-encryption key that this member holds for a recipient ("age1…").
func (s *Store) ArchiveKeys(recipient string) ([]ArchiveKey, error) {
	if _, err := certs.PublicKey(recipient); err != nil {
		return nil, refuse(Invalid, "recipient must be an age X25519 recipient (age1…)")
	}
	s.keys.mu.RLock()
	defer s.keys.mu.RUnlock()
	return wrapKeys(s.keys.deks, recipient)
}

// Snapshot writes an archive of the state to w: the leader's state, or with Stale the local replica, for which neither
// a leader nor a quorum is needed. It needs room for one copy of the database in the data directory while it runs, and
// little memory; commits go on meanwhile.
func (s *Store) Snapshot(ctx context.Context, c Consistency, w io.Writer, keys []ArchiveKey, binary string) (ArchiveMeta, error) {
	var meta ArchiveMeta
	f, err := os.CreateTemp(s.cfg.Dir, temporary)
	if err != nil {
		return meta, err
	}
	f.Close()
	os.Remove(f.Name())
	defer os.Remove(f.Name())
	if err := s.Copy(ctx, c, f.Name()); err != nil {
		return meta, err
	}
	if meta, err = describe(f.Name()); err != nil {
		return meta, err
	}
	meta.NodeID, meta.CreatedAt, meta.Binary = s.cfg.NodeID, s.cfg.Now().UTC().Truncate(time.Second), binary
	return meta, WriteArchive(w, meta, f.Name(), keys)
}

// SnapshotFile is an archive in a file that has no name any more: closing it is all there is to clean up.
type SnapshotFile struct {
	*os.File
	Size   int64
	SHA256 []byte
	Meta   ArchiveMeta
}

// SnapshotFile makes an archive like Snapshot, in a file, so that its digest is known before the first byte is sent.
func (s *Store) SnapshotFile(ctx context.Context, c Consistency, keys []ArchiveKey, binary string) (*SnapshotFile, error) {
	f, err := os.CreateTemp(s.cfg.Dir, temporary)
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	sum := sha256.New()
	out := &SnapshotFile{File: f}
	if out.Meta, err = s.Archives.Snapshot(ctx, c, io.MultiWriter(f, sum), keys, binary); err != nil {
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

// ReadArchive reads an archive into the data directory; see the function of the same name.
func (s *Store) ReadArchive(ctx context.Context, r io.Reader, limits ArchiveLimits) (*Archive, error) {
	return ReadArchive(ctx, r, s.cfg.Dir, limits)
}

// temporary names the files of snapshots and restores that are under way; Open removes those of a killed process.
const temporary = ".snapshot-*.tmp"

func removeTemporary(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, temporary))
	for _, name := range left {
		_ = os.RemoveAll(name)
	}
}
