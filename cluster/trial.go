package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/cluster/datadir"
	"muster/store"
)

// faultOf describes the error of a test write without naming a path.
func faultOf(err error) string {
	var number syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.Is(err, errOtherBytes):
		return faultBytes
	case errors.Is(err, errNoThreads):
		return faultThreads
	case errors.Is(err, errGone):
		return faultGone
	case errors.Is(err, errOtherPlace):
		return faultOther
	case errors.Is(err, syscall.EROFS):
		return faultReadOnly
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return faultFull
	case errors.As(err, &number):
		return "its disk refuses writes: " + number.Error()
	}
	return "its disk refuses writes"
}

var (
	errOtherBytes = errors.New("the bytes read are not those written")
	errGone       = errors.New("the Raft log is gone")
	errNoThreads  = errors.New("no threads can be started")
	errOtherPlace = errors.New("the directory of the Raft log has been replaced")
)

// ground identifies the directory of the Raft log as first seen. When it is deleted, unmounted or mounted over, the
// Raft server continues to write into unreachable files, and every write succeeds.
type ground struct {
	seen, metadata bool
	dev, ino       uint64
}

// check compares the directory with the first one. It may not exist yet.
func (g *ground) check(dir string) error {
	raft := filepath.Join(dir, datadir.RaftDir)
	var st unix.Stat_t
	switch err := unix.Stat(raft, &st); {
	case errors.Is(err, fs.ErrNotExist) && g.seen:
		return errGone
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case g.seen && (g.dev != uint64(st.Dev) || g.ino != st.Ino):
		return errOtherPlace
	}
	g.seen, g.dev, g.ino = true, uint64(st.Dev), st.Ino
	for _, name := range []string{"metadata1", "metadata2"} { // term and vote; at least one always exists
		switch err := unix.Stat(filepath.Join(raft, name), &st); {
		case err == nil:
			g.metadata = true
			return nil
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if g.metadata {
		return errGone
	}
	return nil
}

// tryDisk writes a small file with a number and traces beside the Raft log, syncs it and reads it back. It reports
// whether it has done so: there may be no Raft log yet. It blocks as long as the disk does.
func tryDisk(dir string, number uint64, traces string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, datadir.RaftDir, store.TrialFile), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // there is no Raft log yet
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	var block, read [trialSize]byte
	for i := 0; i < trialSize; i += 8 {
		binary.LittleEndian.PutUint64(block[i:], rand.Uint64())
	}
	putTrial(block[:], number, traces)
	if _, err := f.WriteAt(block[:], 0); err != nil {
		return false, err
	}
	fd := int(f.Fd())
	if err := unix.Fdatasync(fd); err != nil {
		return false, err
	}
	_ = unix.Fadvise(fd, 0, trialSize, unix.FADV_DONTNEED) // read from the disk, not the page cache
	if _, err := f.ReadAt(read[:], 0); err != nil {
		return false, err
	}
	if !bytes.Equal(block[:], read[:]) {
		return false, errOtherBytes
	}
	return true, nil
}

// segmentSize is the space that dqlite reserves for the next segment of the Raft log.
const segmentSize = 8 << 20

// tryRoom reserves space for another segment of the Raft log and frees it. Neither a write over the same block nor the
// free bytes of the file system reveal a quota.
func tryRoom(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, datadir.RaftDir, store.TrialFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no Raft log yet
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, segmentSize)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil // dqlite does without it, too
	}
	return errors.Join(err, f.Truncate(trialSize))
}

// leastFile is more than the size of a segment of the Raft log.
const leastFile = 16 << 20

// lookAtInodes reads the free inodes of the file system and the process's limit of file sizes, which must allow a
// segment and a snapshot, which is about as large as the mirror.
func lookAtInodes(dir string) (look, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return look{}, err
	}
	l := look{inodes: st.Files, freeInodes: st.Ffree, readOnly: st.Flags&unix.ST_RDONLY != 0}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err == nil {
		needed := uint64(leastFile)
		if info, err := os.Stat(filepath.Join(dir, datadir.MirrorFile)); err == nil {
			needed += 2 * uint64(info.Size())
		}
		l.limited = limit.Cur < needed
	}
	return l, nil
}

// A member whose data directory is replaced by an older copy has forgotten entries that it confirmed and votes that it
// gave. So each test write of its disk has a number, the others remember the last one, and a start with a lower one is
// rejected. The others' numbers are in the block of a member's own test write, so that they outlive its process; a
// write for them alone would cost more than it tells.

const (
	traceSilent = 3 * probeEvery  // without an answer for this long the leader tells the others of a member
	traceNews   = 10 * probeEvery // for this long after its start it tells of a member, too
	traceMost   = 16              // traces in one probe
	traceKept   = 100             // traces in one test write, as far as they fit

	traceHeader = 24 // bytes of a test write before the traces: number, its complement, length and sum of the traces
)

// trace is the number of the last known test write of one run of a member.
type trace struct {
	incarnation string
	stored      uint64
	at, since   time.Time // when it was last heard of, and when this run was first; zero when an earlier process heard
}

// traces remembers the newest trace of each member.
type traces struct {
	mu sync.Mutex
	of map[uint64]trace
}

// saw records the report of a member. Zero is the report of an older version.
func (x *traces) saw(id uint64, incarnation string, stored uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	x.sawLocked(id, incarnation, stored, now, now)
}

func (x *traces) sawLocked(id uint64, incarnation string, stored uint64, at, since time.Time) {
	last := x.of[id]
	if last.incarnation != incarnation {
		last = trace{incarnation: incarnation, since: since}
	}
	if stored == 0 || last.stored > stored {
		return
	}
	last.stored, last.at = stored, at
	if x.of == nil {
		x.of = map[uint64]trace{}
	}
	x.of[id] = last
}

// outdates reports whether a member that starts with h has stored more in an earlier run than its directory has. It
// accepts a directory without a number.
func (x *traces) outdates(h hello) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	last, known := x.of[h.NodeID]
	return known && older(h.Incarnation, last.incarnation, last.stored)
}

// older reports whether a run began with a directory older than the one that another run has had.
func older(run Incarnation, other string, stored uint64) bool {
	return run.ID != other && run.Stored > 0 && run.Stored < stored
}

// tell lists, for a probe, this member's own trace, those of the Raft servers, and those of members that have been
// silent for a while or have just started.
func (x *traces) tell(own uint64, self Incarnation, stored uint64, servers []store.Server) string {
	text := fmt.Sprintf("%d:%s:%d", own, self.ID, stored)
	if others := x.list(own, traceMost-1, servers); others != "" {
		text += "," + others
	}
	return text
}

// list writes the traces of other members, those of Raft servers first, and at most as many as given.
func (x *traces) list(own uint64, most int, servers []store.Server) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var texts []string
	told := map[uint64]bool{own: true}
	add := func(id uint64) {
		if t, known := x.of[id]; known && !told[id] && len(texts) < most {
			told[id] = true
			texts = append(texts, fmt.Sprintf("%d:%s:%d", id, t.incarnation, t.stored))
		}
	}
	for _, v := range servers {
		add(v.NodeID)
	}
	for id, t := range x.of {
		if len(texts) >= most {
			break
		}
		if time.Since(t.at) > traceSilent || time.Since(t.since) < traceNews {
			add(id)
		}
	}
	return strings.Join(texts, ",")
}

// hear records the traces that another member tells. It reports whether one of them shows that this member's own
// directory, with which self began, is an older copy.
func (x *traces) hear(own uint64, self Incarnation, text string) (outdated bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	eachTrace(text, traceMost, func(id uint64, incarnation string, stored uint64) {
		if id != own {
			x.sawLocked(id, incarnation, stored, now, now)
		} else if older(self, incarnation, stored) {
			outdated = true
		}
	})
	return outdated
}

// load records the traces that an earlier process of this member has written.
func (x *traces) load(own uint64, text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	eachTrace(text, traceKept, func(id uint64, incarnation string, stored uint64) {
		if id != own {
			x.sawLocked(id, incarnation, stored, time.Time{}, time.Time{})
		}
	})
}

// eachTrace reads the output of list, skipping what it cannot read.
func eachTrace(text string, most int, f func(id uint64, incarnation string, stored uint64)) {
	for i, part := range strings.Split(text, ",") {
		fields := strings.Split(part, ":")
		var id, stored uint64
		if i >= most || len(fields) != 3 || len(fields[1]) > 64 {
			continue
		}
		if n, _ := fmt.Sscan(fields[0]+" "+fields[2], &id, &stored); n == 2 {
			f(id, fields[1], stored)
		}
	}
}

func (x *traces) forget(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.of, id)
}

// nextTrial returns the number of the test write after one. It is at least the time in milliseconds, so that a
// directory that has lost its number does not look older than it is.
func nextTrial(last uint64, now time.Time) uint64 {
	return max(last+1, uint64(max(now.UnixMilli(), 1)))
}

// putTrial writes the number of a test write and the traces, as many as fit, into its block.
func putTrial(block []byte, number uint64, traces string) {
	for traces != "" && len(traces) > len(block)-traceHeader {
		traces = traces[:max(strings.LastIndexByte(traces, ','), 0)]
	}
	binary.LittleEndian.PutUint64(block, number)
	binary.LittleEndian.PutUint64(block[8:], ^number)
	binary.LittleEndian.PutUint32(block[16:], uint32(len(traces)))
	binary.LittleEndian.PutUint32(block[20:], crc32.ChecksumIEEE([]byte(traces)))
	copy(block[traceHeader:], traces)
}

// readTrial returns the number of the last test write in a data directory, 0 when that is not known, and the traces in
// it, empty when they are not known: an older version has written none.
func readTrial(dir string) (number uint64, traces string) {
	f, err := os.Open(filepath.Join(dir, datadir.RaftDir, store.TrialFile))
	if err != nil {
		return 0, ""
	}
	defer f.Close()
	block := make([]byte, trialSize)
	n, _ := f.ReadAt(block, 0)
	if n < 16 {
		return 0, ""
	}
	number = binary.LittleEndian.Uint64(block)
	if binary.LittleEndian.Uint64(block[8:]) != ^number {
		return 0, ""
	}
	if n < traceHeader {
		return number, ""
	}
	size := binary.LittleEndian.Uint32(block[16:])
	if int64(size) > int64(n-traceHeader) {
		return number, ""
	}
	text := block[traceHeader : traceHeader+int(size)]
	if crc32.ChecksumIEEE(text) != binary.LittleEndian.Uint32(block[20:]) {
		return number, ""
	}
	return number, string(text)
}

// Begin makes the first test write of a process, before its Raft server starts: a copy of the directory from before
// that is known as an older one, however short this process runs. It blocks as long as the disk does.
func (i *Incarnation) Begin(d *datadir.Dir) {
	number, traces := readTrial(d.Path)
	number = nextTrial(max(number, i.Stored), time.Now())
	if wrote, err := tryDisk(d.Path, number, traces); wrote && err == nil { // else the keeper says what is wrong
		i.Begun = number
	}
}
