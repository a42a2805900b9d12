package cluster

import (
	"testing"
	"time"

	"muster/certs"
	"muster/store"
)

// An authority of muster's own is replaced in good time, an operator's only once it has ended.
func TestSuccessionDue(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ca, err := certs.NewCA(certs.Transport, "11111111-2222-4333-8444-555555555555", made)
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	for name, x := range map[string]struct {
		left             time.Duration
		own, anOperators bool
	}{
		"young":           {3000 * day, false, false},
		"in good time":    {91 * day, false, false},
		"near its end":    {89 * day, true, false},
		"the last hour":   {time.Hour, true, false},
		"the last second": {time.Second, true, false},
		"at its end":      {0, true, true},
		"long after":      {-1000 * day, true, true},
	} {
		now := ca.Cert.NotAfter.Add(-x.left)
		for _, operators := range []bool{false, true} {
			want := x.own
			if operators {
				want = x.anOperators
			}
			if got := successionDue(&store.Issuer{CA: ca, Operators: operators}, now); got != want {
				t.Errorf("%s, operator's %v: %v, want %v", name, operators, got, want)
			}
		}
	}
}
