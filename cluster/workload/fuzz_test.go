package workload

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzUnits feeds files of /proc: names in them are chosen by whoever starts programs.
func FuzzUnits(f *testing.F) {
	f.Add([]byte("0::/system.slice/a.service/b.service\n"))
	f.Add([]byte("1:name=systemd:/user.slice/../x.scope\n12:pids:/x\n"))
	f.Add([]byte("0::"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, unit := range unitsOf(text) {
			kind := filepath.Ext(unit)
			if strings.Contains(unit, "/") || !bytes.Contains(text, []byte(unit)) ||
				kind != ".slice" && kind != ".service" && kind != ".scope" {
				t.Fatalf("%q is a unit", unit)
			}
		}
	})
}

// FuzzExpiry feeds JWT-SVIDs, as a leader's answer has them.
func FuzzExpiry(f *testing.F) {
	f.Add("e30.eyJleHAiOjE5MDAwMDAwMDB9.x")
	f.Add("..")
	f.Add("a.eyJleHAiOi0xfQ.b")
	f.Fuzz(func(t *testing.T, text string) {
		if at, err := expiryOf(text); err == nil && at.Unix() <= 0 {
			t.Fatalf("it expires at %v", at)
		}
	})
}
