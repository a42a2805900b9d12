package datadir

import (
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestParseReserve(t *testing.T) {
	const total = 100 << 30
	for text, want := range map[string]uint64{"0": 0, "1": 1, "512B": 512, "64KiB": 64 << 10, "256MiB": 256 << 20,
		"2GiB": 2 << 30, "5%": 5 << 30, "0%": 0, "2.5%": total / 40} {
		r, err := ParseReserve(text)
		if got := r.Of(total); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "5%%", "91%", "NaN%", "1MB", "1 Mib", "MiB", "9999999999999GiB"} {
		if r, err := ParseReserve(text); err == nil {
			t.Errorf("%q is taken for %+v", text, r)
		}
	}
	for total, want := range map[uint64]uint64{1 << 40: 256 << 20, 1 << 30: (1 << 30) / 20} {
		if got := DefaultReserve.Of(total) + 1; got/2 != (want+1)/2 {
			t.Errorf("of %d bytes %d are kept, want %d", total, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "64KiB": 64 << 10, "16GiB": 16 << 30} {
		if n, err := ParseSize(text); err != nil || n != want {
			t.Errorf("%q: %d, %v, want %d", text, n, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "5%", "1MB", "GiB", "9999999999999GiB"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
	for d, want := range map[Disk]int64{{Free: 10, Reserve: 3}: 7, {Free: 3, Reserve: 10}: 0} {
		if got := d.Room(); got != want {
			t.Errorf("%+v has room for %d, want %d", d, got, want)
		}
	}
}

// Whatever the disk does: below the reserve a member is low, with a quarter more than the reserve it is not, and in
// between it stays what it was.
func TestDiskHysteresis(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Disk{Reserve: rapid.Uint64Range(0, 1<<40).Draw(t, "reserve")}
		for range 50 {
			free := rapid.Uint64Range(0, 2*d.Reserve+1).Draw(t, "free")
			before := d
			d = d.Next(free, 1<<50)
			want := before.Low
			if free < d.Reserve {
				want = true
			} else if free >= d.Reserve+d.Reserve/4 {
				want = false
			}
			if d.Low != want {
				t.Fatalf("%d free of a reserve of %d, low before %v: low %v", free, d.Reserve, before.Low, d.Low)
			}
		}
	})
}

// TestDiskFinding: the doctor sees what a member stops storing for.
func TestDiskFinding(t *testing.T) {
	good := unix.Statfs_t{
		Bsize:  4096,
		Blocks: 1 << 20,
		Bavail: 1 << 19,
		Files:  1000,
		Ffree:  900,
	}
	reserve, err := ParseReserve("256MiB")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		change func(*unix.Statfs_t)
		state  string
		detail string
	}{
		{func(*unix.Statfs_t) {}, FindingOK, "2048 MiB are free"},
		{func(st *unix.Statfs_t) { st.Files, st.Ffree = 0, 0 }, FindingOK, "2048 MiB are free"}, // btrfs counts none
		{func(st *unix.Statfs_t) { st.Ffree = 7 }, FindingFail, "2048 MiB are free, but only 7 inodes"},
		{func(st *unix.Statfs_t) { st.Flags = unix.ST_RDONLY }, FindingFail, "the file system is read-only"},
		{func(st *unix.Statfs_t) { st.Bavail = 1 }, FindingFail, "0 MiB are free"},
		{func(st *unix.Statfs_t) { st.Bavail = 40 << 8 }, FindingWarn, "40 MiB are free, 256 MiB are kept in reserve"},
	} {
		st := good
		x.change(&st)
		if state, detail, next := diskFinding(&st, reserve); state != x.state || detail != x.detail ||
			(next == "") != (state == FindingOK) {
			t.Errorf("%+v: %s, %q, %q", st, state, detail, next)
		}
	}
}
