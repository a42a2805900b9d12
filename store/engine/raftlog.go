package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	dqlite "github.com/canonical/go-dqlite/v3"
	"github.com/canonical/go-dqlite/v3/client"
)

// This file reads a Raft directory in Go, because the C library aborts the process over some unexpected content. The
// format is that of raft (uv_encoding.c, uv_segment.c): a format word, then batches of two checksums, a header and
// data.

const (
	raftFormat    = 1
	raftChange    = 3 // type of the entries that change the configuration
	raftWord      = 8
	maxRaftConfig = 1 << 20
)

var errNoConfiguration = errors.New("the Raft log has no configuration: this directory never took part in Raft")

// Configuration reads the newest Raft configuration in a directory that no process uses, from its last snapshot or the
// log after it.
func Configuration(raftDir string) (list []Server, err error) {
	if list, err = snapshotConfiguration(raftDir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(raftDir)
	if err != nil {
		return nil, fmt.Errorf("the Raft log cannot be read: %w", err)
	}
	var closed, open []string
	for _, e := range entries { // ReadDir sorts, and the names sort as the segments do
		switch name := e.Name(); {
		case closedSegment.MatchString(name):
			closed = append(closed, name)
		case openSegment.MatchString(name):
			open = append(open, name)
		}
	}
	slices.SortFunc(open, func(a, b string) int { // open-2 comes before open-10
		if d := len(a) - len(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, name := range append(closed, open...) {
		data, err := os.ReadFile(filepath.Join(raftDir, name))
		if err != nil {
			return nil, fmt.Errorf("the Raft log cannot be read: %w", err)
		}
		change, err := lastChange(data)
		if err != nil {
			return nil, fmt.Errorf("the segment %s: %w", name, err)
		}
		if change != nil {
			if list, err = decodeConfiguration(change); err != nil {
				return nil, fmt.Errorf("the segment %s: %w", name, err)
			}
		}
	}
	if len(list) == 0 {
		return nil, errNoConfiguration
	}
	return list, nil
}

// snapshotConfiguration reads the configuration of the newest complete snapshot, or nil.
func snapshotConfiguration(raftDir string) ([]Server, error) {
	files, err := filepath.Glob(filepath.Join(raftDir, "snapshot-*.meta"))
	if err != nil {
		return nil, err
	}
	newest, last := "", Entry{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".meta")
		var e Entry
		var at uint64
		if n, _ := fmt.Sscanf(name, "snapshot-%d-%d-%d", &e.Term, &e.Index, &at); n != 3 {
			continue
		}
		if _, err := os.Stat(filepath.Join(raftDir, name)); err == nil && (newest == "" || last.Before(e)) {
			newest, last = file, e
		}
	}
	if newest == "" {
		return nil, nil
	}
	data, err := os.ReadFile(newest)
	if err != nil {
		return nil, fmt.Errorf("the Raft log cannot be read: %w", err)
	}
	const header = 4 * raftWord
	if len(data) < header || binary.LittleEndian.Uint64(data) != raftFormat {
		return nil, fmt.Errorf("the snapshot %s is damaged", filepath.Base(newest))
	}
	size := binary.LittleEndian.Uint64(data[3*raftWord:])
	if size > maxRaftConfig || uint64(len(data)-header) < size {
		return nil, fmt.Errorf("the snapshot %s is damaged", filepath.Base(newest))
	}
	return decodeConfiguration(data[header : header+int(size)])
}

// lastChange finds the last entry of a segment that changes the configuration, or nil. An open segment ends with zeros,
// or with an incomplete entry if the process was killed.
func lastChange(data []byte) (change []byte, err error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) < raftWord {
		return nil, errors.New("it is truncated")
	}
	if format := binary.LittleEndian.Uint64(data); format != raftFormat {
		if format == 0 {
			return nil, nil // reserved, never written
		}
		return nil, fmt.Errorf("it has the unexpected format %d", format)
	}
	for rest := data[raftWord:]; len(rest) >= 2*raftWord; {
		n := binary.LittleEndian.Uint64(rest[raftWord:])
		rest = rest[2*raftWord:]
		if n == 0 || n > uint64(len(rest))/(2*raftWord) {
			break
		}
		headers := rest[:n*2*raftWord]
		rest = rest[len(headers):]
		for ; len(headers) > 0; headers = headers[2*raftWord:] {
			size := uint64(binary.LittleEndian.Uint32(headers[raftWord+4:]))
			if size > uint64(len(rest)) {
				return change, nil
			}
			if headers[raftWord] == raftChange {
				change = rest[:size]
			}
			rest = rest[size:]
		}
	}
	return change, nil
}

var errForeignConfiguration = errors.New("the Raft configuration is not that of a muster cluster")

// decodeConfiguration reads an encoded configuration. It fails for a server whose address is not a raftName.
func decodeConfiguration(data []byte) (list []Server, err error) {
	if len(data) < 1+raftWord || data[0] != 1 {
		return nil, errForeignConfiguration
	}
	n := binary.LittleEndian.Uint64(data[1:])
	rest := data[1+raftWord:]
	for ; n > 0; n-- {
		if len(rest) < raftWord {
			return nil, errForeignConfiguration
		}
		id := binary.LittleEndian.Uint64(rest)
		address, after, found := bytes.Cut(rest[raftWord:], []byte{0})
		if !found || len(after) < 1 || string(address) != raftName(id) {
			return nil, errForeignConfiguration
		}
		role := RoleStandBy
		switch after[0] {
		case 1:
			role = RoleVoter
		case 2:
			role = RoleSpare
		}
		list, rest = append(list, Server{NodeID: id, Role: role}), after[1:]
	}
	return list, nil
}

// CheckRecoverable returns why a configuration must not be forced upon a directory that no process uses: files are
// missing, it never took part in Raft, or the member was no Raft server. In these cases the C library would abort, or
// make a cluster that loses its only server.
func CheckRecoverable(raftDir string, nodeID uint64) error {
	if _, err := InspectRaft(raftDir); err != nil {
		what, known := Diagnose(err)
		if known {
			return fmt.Errorf("the Raft log cannot be used: %w; %s", err, what.What)
		}
		return fmt.Errorf("the Raft log cannot be used: %w", err)
	}
	servers, err := Configuration(raftDir)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(servers, func(v Server) bool { return v.NodeID == nodeID }) {
		return fmt.Errorf("node %d is not in the Raft configuration of its own log: it was removed, or was no Raft "+
			"server; its log cannot be the cluster's", nodeID)
	}
	return nil
}

// Entry identifies the last entry of a Raft log.
type Entry struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

// Before reports whether a log that ends with e is older than one that ends with o.
func (e Entry) Before(o Entry) bool { return e.Term < o.Term || e.Term == o.Term && e.Index < o.Index }

func (e Entry) String() string { return fmt.Sprintf("term %d, index %d", e.Term, e.Index) }

// LastEntry returns the last entry of the log in a Raft directory that no process uses. It closes open segments, which
// does not change their entries.
func LastEntry(raftDir string) (Entry, error) {
	info, err := dqlite.ReadLastEntryInfo(raftDir)
	if err != nil {
		return Entry{}, fmt.Errorf("the Raft log cannot be read: %w", err)
	}
	return Entry{Term: info.Term, Index: info.Index}, nil
}

// Reconfigure forces a Raft configuration of just these voters upon a directory that no process uses. It is for a lost
// majority: once, on the most advanced survivor, whose directory then replaces those of the others (see go-dqlite's
// ReconfigureMembershipExt).
func Reconfigure(raftDir string, voters []uint64) error {
	var list []dqlite.NodeInfo
	for _, id := range voters {
		list = append(list, dqlite.NodeInfo{ID: id, Address: raftName(id), Role: client.Voter})
	}
	if err := dqlite.ReconfigureMembershipExt(raftDir, list); err != nil {
		return fmt.Errorf("the Raft configuration was not changed: %w", err)
	}
	return nil
}

// RaftFiles describes this member's Raft directory, as of a second ago at most, and Raft's term. The term is 0 outside
// Raft.
func (e *Engine) RaftFiles() (f RaftFiles, term uint64) {
	e.files.Lock()
	defer e.files.Unlock()
	if time.Since(e.files.at) < time.Second {
		return e.files.last, e.files.term
	}
	dir := filepath.Join(e.cfg.Dir, "raft")
	if f, err := InspectRaft(dir); err == nil { // else files are just being replaced
		e.files.last = f
	}
	e.files.at, e.files.term = time.Now(), raftTerm(dir)
	return e.files.last, e.files.term
}

// raftTerm returns the term from the newer of the two metadata files of raft: a format word, the version of the file,
// the term, and the vote (uv_metadata.c).
func raftTerm(raftDir string) (term uint64) {
	newest := uint64(0)
	for _, name := range raftMetadata {
		data, err := os.ReadFile(filepath.Join(raftDir, name))
		if err != nil || len(data) < 3*raftWord || binary.LittleEndian.Uint64(data) != raftFormat {
			continue
		}
		if version := binary.LittleEndian.Uint64(data[raftWord:]); version >= newest {
			newest, term = version, binary.LittleEndian.Uint64(data[2*raftWord:])
		}
	}
	return term
}

// raftMetadata are the files of raft's term and vote. Versions are written to them in turn, from 1 on.
var raftMetadata = [2]string{"metadata1", "metadata2"}

// LostVotes returns which of the files with raft's term and vote are missing although they were there before, as words
// for an operator, or "". A file that is too short counts as missing: raft ignores and deletes it, and would forget a
// vote. The second file may be missing before version 2 is written, or be short after a crash in the midst of that.
func LostVotes(raftDir string) string {
	var there [2]bool
	var first uint64 // version
	for i, name := range raftMetadata {
		data, err := os.ReadFile(filepath.Join(raftDir, name))
		there[i] = err == nil && len(data) >= 4*raftWord || err != nil && !errors.Is(err, fs.ErrNotExist) // raft reports it
		if i == 0 && err == nil && there[i] {
			first = binary.LittleEndian.Uint64(data[raftWord:])
		}
	}
	switch {
	case !there[0] && !there[1]:
		return "neither metadata1 nor metadata2 is complete"
	case !there[0]:
		return "metadata1 is missing or too short"
	case !there[1] && first > 1:
		return "metadata2 is missing or too short"
	}
	return ""
}
