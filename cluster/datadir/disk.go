package datadir

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk is the free space of the file system that a member writes to, in bytes.
type Disk struct {
	Free    uint64 `json:"freeBytes"`
	Total   uint64 `json:"totalBytes"`
	Reserve uint64 `json:"reserveBytes"`
	Low     bool   `json:"low"`
}

// Next returns the state after a new reading. A low member stays low until there is a quarter more than the reserve, so
// that votes do not change with each snapshot.
func (d Disk) Next(free, total uint64) Disk {
	limit := d.Reserve
	if d.Low {
		limit += d.Reserve / 4
	}
	return Disk{Free: free, Total: total, Reserve: d.Reserve, Low: free < limit}
}

// Room returns how many bytes may be written before the reserve is reached.
func (d Disk) Room() int64 { return max(0, int64(d.Free)-int64(d.Reserve)) }

// StatDisk returns the bytes that a process without privileges may still write in a directory, and the size of its file
// system.
func StatDisk(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// Reserve is the space that a member keeps free: a number of bytes or a share of the file system.
type Reserve struct {
	bytes uint64
	share float64 // 0 … 1
	least bool    // the smaller of both
}

// DefaultReserve is 256 MiB, or 5 % of a smaller file system.
var DefaultReserve = Reserve{bytes: 256 << 20, share: 0.05, least: true}

var units = map[string]uint64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

// ParseReserve parses "256MiB", "2GiB", "5%" or "0" (no reserve).
func ParseReserve(text string) (Reserve, error) {
	bad := fmt.Errorf("a reserve must be a size such as 256MiB or a share such as 5%%, not %q", text)
	if number, ok := strings.CutSuffix(text, "%"); ok {
		p, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(p >= 0 && p <= 90) {
			return Reserve{}, bad
		}
		return Reserve{share: p / 100}, nil
	}
	n, ok := parseSize(text)
	if !ok {
		return Reserve{}, bad
	}
	return Reserve{bytes: n}, nil
}

// ParseSize parses "256MiB" or "2GiB"; at least one byte.
func ParseSize(text string) (int64, error) {
	n, ok := parseSize(text)
	if !ok || n == 0 {
		return 0, fmt.Errorf("a size must be a number of bytes or such as 256MiB, not %q", text)
	}
	return int64(n), nil
}

func parseSize(text string) (uint64, bool) {
	digits := strings.TrimRight(text, "BKMGTi")
	unit, known := units[strings.TrimPrefix(text, digits)]
	n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
	if err != nil || !known || n > math.MaxInt64/unit {
		return 0, false
	}
	return n * unit, true
}

// Of returns the reserve on a file system of so many bytes.
func (r Reserve) Of(total uint64) uint64 {
	share := uint64(r.share * float64(total))
	switch {
	case r.least:
		return min(r.bytes, share)
	case r.bytes > 0:
		return r.bytes
	default:
		return share
	}
}

// FewInodes is the least number of free inodes: the Raft log and the mirror need new files all the time.
const FewInodes = 8

// disk checks what the file system lets a member write.
func (x *doctor) disk(reserve Reserve) {
	var st unix.Statfs_t
	if err := unix.Statfs(x.d.Path, &st); err != nil {
		x.say("disk", FindingWarn, "", "the file system cannot be examined: %v", err)
		return
	}
	state, detail, next := diskFinding(&st, reserve)
	x.say("disk", state, next, "%s", detail)
}

func diskFinding(st *unix.Statfs_t, reserve Reserve) (state, detail, next string) {
	free := st.Bavail * uint64(st.Bsize)
	keep := reserve.Of(st.Blocks * uint64(st.Bsize))
	detail = fmt.Sprintf("%d MiB are free", free>>20)
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		return FindingFail, "the file system is read-only",
			"look for why (dmesg): after an error, stop the member, fsck, mount and start it"
	case free < 16<<20:
		return FindingFail, detail, "make room or add disk before anything else"
	case st.Files > 0 && st.Ffree < FewInodes:
		return FindingFail, fmt.Sprintf("%s, but only %d inodes", detail, st.Ffree),
			"delete files (df -i), or move the directory to a file system with more inodes"
	case free < keep:
		return FindingWarn, fmt.Sprintf("%s, %d MiB are kept in reserve", detail, keep>>20),
			"make room or add disk: below its reserve a member gives leadership and vote away"
	}
	return FindingOK, detail, ""
}
