package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"muster/certs"
	"muster/store"
)

// Until a detachment is complete, the new cluster is in detachingDir. Then the old files move into a directory beside
// it and the new ones take their place, node.json last: at any moment the directory has one node.json, and Open rejects
// a directory in between.

const (
	detachingDir = "detaching"
	beforeDetach = "before-detach-" // followed by the time
	beforeFile   = "before"         // in detachingDir: the name of that directory
)

var errDetaching = errors.New("a detach of this directory was interrupted: run muster detach --data DIR again, " +
	"it goes on")

// OpenDetaching opens the directory of a member for a detachment. Unlike Open it accepts one whose detachment was
// interrupted.
func OpenDetaching(path string) (*Dir, error) {
	if _, err := os.Stat(filepath.Join(path, nodeFile)); err != nil {
		return nil, fmt.Errorf("%s is not the data directory of a member: it has no node.json", path)
	}
	return open(path)
}

// Detachment is the result of a detachment.
type Detachment struct {
	Taken   store.Detached `json:"taken"`   // zero when an interrupted detachment was completed
	Node    Node           `json:"node"`    // of the new cluster
	Was     Node           `json:"was"`     // in the old one
	Removed bool           `json:"removed"` // from the old cluster, as far as this machine knows
	Before  string         `json:"before"`  // directory with the old files
}

// Detach makes a new cluster of one member from the replica of a member that does not run: with a new id, new keys,
// authorities and administrator's token, the old settings, and the secrets that this member can open. It does not
// affect the old cluster. The old files are kept in a directory beside the new ones. It may be repeated after a crash.
// The new cluster exists once the member has been started.
func Detach(ctx context.Context, d *Dir, name, datacenter, version string, now time.Time) (out Detachment, err error) {
	was, err := d.Node()
	if err != nil {
		return out, err
	}
	out.Was, out.Removed = *was, errors.Is(d.CheckRemoved(was), ErrRemoved)
	next := &Dir{Path: d.file(detachingDir)}
	ready, err := next.Node()
	if err != nil {
		return out, err
	}
	if ready == nil {
		if ready, err = d.detachInto(ctx, next, was, &out, name, datacenter, version, now); err != nil {
			return out, errors.Join(err, os.RemoveAll(next.Path))
		}
	}
	out.Node = *ready
	out.Before, err = d.replaceBy(next, now)
	return out, err
}

// detachInto makes the new cluster in a separate directory.
func (d *Dir) detachInto(ctx context.Context, next *Dir, was *Node, out *Detachment, name, datacenter, version string,
	now time.Time) (*Node, error) {
	fixed, err := store.MirrorFounding(d.file(MirrorFile))
	if err != nil {
		return nil, fmt.Errorf("the mirror of %s cannot be read, so there is nothing to detach: %w", d.Path, err)
	}
	p := Plan{
		Name:        was.Name,
		Mode:        store.ModeFull,
		APIAddress:  was.APIAddress,
		RaftAddress: was.RaftAddress,
		Version:     version,
		OverlayCIDR: fixed.OverlayCIDR,
		Datacenter:  fixed.Datacenter,
	}
	if p.OverlaySlice, err = strconv.Atoi(fixed.OverlaySlice); err != nil {
		return nil, fmt.Errorf("the mirror of %s is damaged: it has no size of overlay slices", d.Path)
	}
	if name != "" {
		p.Name = name
	}
	if datacenter != "" {
		p.Datacenter = datacenter
	}
	own, err := d.OwnIdentity()
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(next.Path); err != nil {
		return nil, dirError(d.Path, err)
	}
	if err := os.MkdirAll(next.file(tlsDir), 0o700); err != nil {
		return nil, dirError(d.Path, err)
	}
	n, f, dek, err := next.prepareFounding(p, now)
	if err != nil {
		return nil, err
	}
	if out.Taken, err = store.Detach(ctx, d.file(MirrorFile), own, f, dek, next.file(restoreFile)); err != nil {
		return nil, err
	}
	return n, next.saveFounding(n, store.Founding{Import: restoreFile, Member: f.Member})
}

// replaceBy moves the old files aside and those of another directory here. It can continue after an interruption:
// node.json among the old files shows that all of them were moved.
func (d *Dir) replaceBy(next *Dir, now time.Time) (before string, err error) {
	if before, err = d.beforeDir(next, now); err != nil {
		return "", dirError(d.Path, err)
	}
	if _, err := os.Stat(filepath.Join(before, nodeFile)); errors.Is(err, fs.ErrNotExist) {
		if err := d.moveAside(before); err != nil {
			return "", dirError(d.Path, err)
		}
	}
	if err := moveEntries(next.Path, d.Path, func(name string) bool {
		return name == nodeFile || name == beforeFile
	}); err != nil {
		return "", dirError(d.Path, err)
	}
	if err := os.Rename(next.file(nodeFile), d.file(nodeFile)); err != nil {
		return "", dirError(d.Path, err)
	}
	return before, os.RemoveAll(next.Path)
}

// moveAside moves the old files, and last a copy of node.json.
func (d *Dir) moveAside(before string) error {
	if err := moveEntries(d.Path, before, func(name string) bool {
		return name == nodeFile || name == lockFile || name == detachingDir || strings.HasPrefix(name, beforeDetach) ||
			filepath.Ext(name) == ".log"
	}); err != nil {
		return err
	}
	old, err := d.read(nodeFile)
	if err != nil {
		return err
	}
	return certs.WriteFile(filepath.Join(before, nodeFile), old, 0o644)
}

// beforeDir makes the directory for the old files. Its name is kept with the new ones.
func (d *Dir) beforeDir(next *Dir, now time.Time) (string, error) {
	name, err := next.read(beforeFile)
	if errors.Is(err, fs.ErrNotExist) {
		name = []byte(beforeDetach + now.UTC().Format("20060102T150405Z"))
		err = next.write(beforeFile, name, 0o600)
	}
	if err != nil {
		return "", err
	}
	path := d.file(filepath.Base(string(name)))
	return path, os.MkdirAll(path, 0o700)
}

// moveEntries moves the entries of a directory into another one of the same file system.
func moveEntries(from, to string, stays func(name string) bool) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if stays(e.Name()) || ofFileSystem(e) {
			continue
		}
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
