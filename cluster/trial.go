package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

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
