package workload

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"muster/certs"
	"muster/internal/await"
	"muster/store"
)

const testCluster = "6f0c1b2a-1111-4222-8333-444455556666"

// fakeCluster is a database and a leader with a workload authority.
type fakeCluster struct {
	t        *testing.T
	ca       certs.CA
	lifetime time.Duration
	away     atomic.Bool
	signed   atomic.Int64
	list     []store.Workload
}

func (f *fakeCluster) Workloads(context.Context) ([]store.Workload, error)     { return f.list, nil }
func (f *fakeCluster) PeerBundles(context.Context) ([]store.PeerBundle, error) { return nil, nil }
func (f *fakeCluster) Changed() <-chan struct{}                                { return nil }
func (f *fakeCluster) SignJWT(context.Context, JWTRequest) (a JWTAnswer, _ error) {
	return a, errors.New("no")
}
func (f *fakeCluster) NoteRefused(context.Context, []store.RefusedCaller) error { return nil }

func (f *fakeCluster) Bundle(context.Context) (*spiffebundle.Bundle, error) {
	return certs.NewBundle(testCluster, []*x509.Certificate{f.ca.Cert}, map[string]crypto.PublicKey{}, 1)
}

func (f *fakeCluster) SignSVIDs(_ context.Context, q SVIDRequest) (a SVIDAnswer, err error) {
	if f.away.Load() {
		return a, errors.New("there is no leader")
	}
	for _, k := range q.List {
		key, err := x509.ParsePKIXPublicKey(k.Key)
		if err != nil {
			return a, err
		}
		id, err := certs.NodeSVID(testCluster, 7)
		if k.Workload != "" {
			id, err = certs.WorkloadID(testCluster, "/"+k.Workload)
		}
		if err != nil {
			return a, err
		}
		leaf, err := f.ca.SignSVID(key,
			certs.SVID{ID: id, NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(f.lifetime)})
		if err != nil {
			return a, err
		}
		f.signed.Add(1)
		a.List = append(a.List, SignedSVID{k.Workload, [][]byte{leaf}})
	}
	return a, nil
}

func (f *fakeCluster) agent(kept string) *agent {
	f.t.Helper()
	a, err := newAgent(Config{
		ClusterID: testCluster,
		NodeID:    7,
		Registry:  f,
		Leader:    f,
		Kept:      kept,
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *fakeCluster) run(a *agent) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.run(ctx) }()
	return func() { cancel(); <-done }
}

// TestRenewalByClock: short-lived certificates are renewed in the middle of their lives, without anything else
// happening; what cannot be renewed is counted, and handed out until it ends.
func TestRenewalByClock(t *testing.T) {
	f := &fakeCluster{t: t, ca: newWorkloadCA(t), lifetime: 3 * time.Second, list: []store.Workload{{ID: "w", Path: "/w"}}}
	a := f.agent("")
	stop := f.run(a)
	defer stop()
	await.True(t, "three generations", func() bool { return f.signed.Load() >= 6 })
	st, _ := a.now()
	if got := st.ready([]string{"w", ""}, time.Now()); len(got) != 2 || a.failed.Load() != 0 {
		t.Errorf("%d are ready, %d renewals failed", len(got), a.failed.Load())
	}
	f.away.Store(true)
	await.True(t, "a renewal in vain", func() bool { return a.failed.Load() > 0 })
	st, _ = a.now()
	if last := st.svids["w"]; time.Now().Before(last.leaf.NotAfter) && len(st.ready([]string{"w"}, time.Now())) != 1 {
		t.Error("it is not handed out until it ends")
	}
	await.True(t, "it ends", func() bool { st, _ := a.now(); return len(st.ready([]string{"w"}, time.Now())) == 0 })
	f.away.Store(false)
	await.True(t, "it is there again", func() bool {
		st, _ := a.now()
		return len(st.ready([]string{"w"}, time.Now())) == 1
	})
}

// TestKept: what was ready is ready again after a restart without a leader, as far as it is still registered and valid;
// a file that others may read, or of another cluster, or that is damaged, gives nothing.
func TestKept(t *testing.T) {
	f := &fakeCluster{t: t, ca: newWorkloadCA(t), lifetime: time.Hour,
		list: []store.Workload{{ID: "w", Path: "/w"}, {ID: "gone", Path: "/gone"}}}
	path := filepath.Join(t.TempDir(), "workloads.json")
	a := f.agent(path)
	stop := f.run(a)
	all := []string{"", "w", "gone"}
	await.True(t, "all are ready", func() bool { st, _ := a.now(); return len(st.ready(all, time.Now())) == 3 })
	before, _ := a.now()
	await.True(t, "they are kept", func() bool { _, err := os.Stat(path); return err == nil })
	stop()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.away.Store(true)
	f.list = f.list[:1]
	b := f.agent(path)
	if st, _ := b.now(); len(st.svids) != 0 {
		t.Error("something is handed out before it is known whether it is registered")
	}
	stop = f.run(b)
	await.True(t, "they are ready without a leader", func() bool {
		st, _ := b.now()
		return len(st.ready(all, time.Now())) == 2
	})
	after, _ := b.now()
	if !after.svids["w"].leaf.Equal(before.svids["w"].leaf) || after.svids["gone"] != nil ||
		string(after.svids["w"].key) != string(before.svids["w"].key) {
		t.Error("it is another certificate")
	}
	stop()
	for name, spoil := range map[string]func() error{
		"others may read it": func() error { return os.Chmod(path, 0o644) },
		"damaged":            func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
		"another key": func() error {
			return os.WriteFile(path, []byte(`[{"workload":"w","id":"spiffe://`+testCluster+`/w","chain":"AA==","key":"AA=="}]`),
				0o600)
		},
	} {
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if got, _ := recall(path, testCluster, time.Now()); len(got) != 0 {
			t.Errorf("%s: %d", name, len(got))
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := recall(path, "another", time.Now()); err != nil || len(got) != 0 {
		t.Errorf("of another cluster: %d, %v", len(got), err)
	}
	if got, err := recall(path, testCluster, time.Now().Add(2*time.Hour)); err != nil || len(got) != 0 {
		t.Errorf("what has ended: %d, %v", len(got), err)
	}
	if got, err := recall(path, testCluster, time.Now()); err != nil || len(got) != 3 {
		t.Errorf("as it was: %d, %v", len(got), err)
	}
}

func newWorkloadCA(t *testing.T) certs.CA {
	t.Helper()
	ca, err := certs.NewCA(certs.Workload, testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}
