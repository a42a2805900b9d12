package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Diagnosis is a known reason why dqlite does not start, and what to do about it.
type Diagnosis struct {
	What string
	Next string
}

const (
	nextRejoin = "never delete segments by hand; if the other members have a quorum, remove this member (muster member " +
		"remove) and join it again with an empty directory; if not, see docs/recovery.md"
	nextRoom = "make room on the disk, then start again; if it still fails, remove this member and join it again with " +
		"an empty directory"
)

var startErrors = []struct {
	text *regexp.Regexp
	Diagnosis
}{
	{regexp.MustCompile(`closed segment .* (is past last snapshot|first index should have been)`),
		Diagnosis{"entries between the last snapshot and the first segment of the Raft log are missing", nextRejoin}},
	{regexp.MustCompile(`found \d+ entries \(expected \d+\)`),
		Diagnosis{"a segment of the Raft log holds fewer or more entries than its name says: the machine or its disk " +
			"failed while it was written", nextRejoin}},
	{regexp.MustCompile(`(?i)no space left|ENOSPC|not enough (disk )?space`),
		Diagnosis{"there is no room on the disk", nextRoom}},
	{regexp.MustCompile(`(?i)permission denied|not writable`), Diagnosis{"a file of the Raft log belongs to another " +
		"user than this one: a command may have been run as root once",
		"as root, chown -R USER the data directory, then start again"}},
	{regexp.MustCompile(`dqlite does not start: (raft_bootstrap\(\): )?$`),
		Diagnosis{"dqlite gives no reason: threads, open files or memory may have run out",
			"raise the limits of this process (TasksMax, LimitNOFILE and MemoryMax in the systemd unit; ulimit -a), " +
				"then start again"}},
	{regexp.MustCompile(`too many open files`), Diagnosis{"this process may open too few files",
		"raise its limit (LimitNOFILE in the systemd unit, ulimit -n), then start again"}},
	{regexp.MustCompile(`(?i)checksum|corrupt|unexpected format|malformed|is truncated|load (closed|open) segment|` +
		`short read|read (segment|entry|preamble|header)|decode|describe_last_entry failed`),
		Diagnosis{"the Raft log is damaged", nextRejoin}},
	{regexp.MustCompile(`(?i)metadata[12]`), Diagnosis{"the Raft metadata are damaged", nextRejoin}},
	{regexp.MustCompile(`(?i)lock`),
		Diagnosis{"another process uses the Raft directory", "stop it; two processes on one directory destroy it"}},
}

// Diagnose recognises the errors with which dqlite is known not to start.
func Diagnose(err error) (Diagnosis, bool) {
	if err == nil {
		return Diagnosis{}, false
	}
	for _, e := range startErrors {
		if e.text.MatchString(err.Error()) {
			return e.Diagnosis, true
		}
	}
	return Diagnosis{}, false
}

var (
	closedSegment = regexp.MustCompile(`^(\d{16})-(\d{16})$`)
	openSegment   = regexp.MustCompile(`^open-\d+$`)
	snapshotFile  = regexp.MustCompile(`^snapshot-(\d+)-(\d+)-\d+$`)
)

// RaftFiles is what the file names in a Raft directory reveal.
type RaftFiles struct {
	Segments  int    // closed ones
	First     uint64 // index of their first entry
	Last      uint64 // index of their last entry
	Open      int
	Snapshot  uint64 // index of the newest snapshot, 0 for none
	Snapshots int
	TakenAt   time.Time // of the newest snapshot; zero for none
	Bytes     int64
	LogBytes  int64 // size of all segments; open ones have their final size
}

// InspectRaft reads the file names in a Raft directory, without opening any file. It returns an error for what keeps
// dqlite from starting: gaps between segments, segments that begin after the newest snapshot, empty files.
func InspectRaft(dir string) (f RaftFiles, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return f, err
	}
	type span struct{ first, last uint64 }
	var spans []span
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // deleted meanwhile by the running member
		}
		f.Bytes += info.Size()
		name := e.Name()
		if closedSegment.MatchString(name) || openSegment.MatchString(name) {
			f.LogBytes += info.Size()
		}
		number := func(s string) uint64 { n, _ := strconv.ParseUint(s, 10, 64); return n }
		if m := closedSegment.FindStringSubmatch(name); m != nil {
			if info.Size() == 0 {
				return f, fmt.Errorf("the segment %s is empty", name)
			}
			spans = append(spans, span{number(m[1]), number(m[2])})
		}
		if openSegment.MatchString(name) {
			f.Open++
		}
		if m := snapshotFile.FindStringSubmatch(name); m != nil {
			if _, err := os.Stat(filepath.Join(dir, name+".meta")); err != nil {
				continue // an incomplete one, which dqlite ignores
			}
			f.Snapshots++
			if index := number(m[2]); index >= f.Snapshot {
				f.Snapshot, f.TakenAt = index, info.ModTime()
			}
		}
	}
	f.Segments = len(spans)
	slices.SortFunc(spans, func(a, b span) int { return int(int64(a.first) - int64(b.first)) })
	for i, s := range spans {
		if i == 0 {
			f.First = s.first
		} else if s.first != f.Last+1 {
			return f, fmt.Errorf("entries %d to %d are missing between two segments", f.Last+1, s.first-1)
		}
		f.Last = s.last
	}
	if len(spans) > 0 && f.First > f.Snapshot+1 {
		return f, fmt.Errorf("closed segment %016d-%016d is past last snapshot (index %d)", spans[0].first, spans[0].last,
			f.Snapshot)
	}
	return f, nil
}
