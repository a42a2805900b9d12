package datadir

import (
	"path/filepath"
	"testing"
	"time"
)

// TestDoctorOfARemovedMember: the doctor says that a directory is that of a removed member, also when nobody else runs.
func TestDoctorOfARemovedMember(t *testing.T) {
	t.Parallel()
	d, err := Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := Found(d, Plan{
		Name:         "n",
		APIAddress:   "127.0.0.1:1",
		RaftAddress:  "127.0.0.1:2",
		OverlayCIDR:  "10.200.0.0/16",
		OverlaySlice: 28,
		Datacenter:   "dc1",
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, removed := range []bool{false, true} {
		if removed {
			if err := d.MarkRemoved(n); err != nil {
				t.Fatal(err)
			}
		}
		said := false
		for _, f := range Examine(t.Context(), d.Path, Reserve{}) {
			said = said || f.Check == "membership" && f.State == FindingFail && f.Next != ""
		}
		if said != removed {
			t.Errorf("removed: %v; the doctor says so: %v", removed, said)
		}
	}
}
