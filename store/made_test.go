package store

import (
	"strings"
	"testing"
	"time"

	"muster/certs"
)

// TestMadeDurations: a token of half an hour is one of half an hour, whatever part of a second it was made in.
func TestMadeDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * time.Minute:                      "30m0s",
		30*time.Minute - 999*time.Millisecond: "30m0s",
		30*time.Minute - time.Millisecond:     "30m0s",
		time.Second:                           "1s",
		time.Millisecond:                      "1s",
		0:                                     "",
		-time.Second:                          "",
	} {
		if got := madeValue(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// TestAuditSaysWhatWasMade: the row of a token or key names its scopes, uses and life, and nothing of its secret.
func TestAuditSaysWhatWasMade(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	actor := Actor{Name: "test"}
	secret := certs.NewSecret()
	hash := certs.HashSecret(secret)
	now := l.Now()
	in := func(d time.Duration) *time.Time { at := now.Add(d); return &at }
	if _, err := l.APITokens.Create(bg, actor, APIToken{
		ID:         NewID(),
		Name:       `the "ops" team`,
		SecretHash: hash,
		Scopes:     []string{ScopeClusterRead, ScopeKeysManage},
		ExpiresAt:  in(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.JoinTokens.Create(bg, actor, JoinToken{
		ID:        NewID(),
		Format:    FormatMuster,
		KeyEpoch:  1,
		MaxUses:   3,
		Mode:      ModeReplicate,
		NodeID:    77,
		BindCIDR:  "10.0.0.0/8",
		Hosts:     []string{"a.example", "b.example"},
		Labels:    map[string]string{"z": "1", "a": "x y"},
		ExpiresAt: *in(10 * time.Minute),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.APIKeys.Create(bg, actor, APIKey{
		ID:         NewID(),
		Kind:       KeyKindEnrollment,
		Name:       "n",
		SecretHash: hash,
		Scopes:     []string{ScopeEnroll},
		MaxUses:    2,
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Leases.Put(bg, actor, Lease{ID: "web", NodeID: 1, Kind: "container"}, 90*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := l.Leases.Delete(bg, actor, "web"); err != nil {
		t.Fatal(err)
	}
	for action, want := range map[string]string{
		"lease.grant":      `node/1 kind=container ttl=1m30s`,
		"lease.release":    `node/1 kind=container`,
		"api_token.create": `name="the \"ops\" team" scopes=cluster:read,keys:manage ttl=1h`,
		"join_token.create": `uses=3 ttl=10m0s mode=replicate node=77 hosts=a.example,b.example cidr=10.0.0.0/8 ` +
			`labels="a:x y,z:1"`,
		KeyKindEnrollment + ".create": `name=n scopes=enroll uses=2`,
	} {
		rows, err := l.Audit.List(bg, Linearisable, AuditFilter{Action: action, Limit: 10})
		if err != nil || len(rows) != 1 {
			t.Fatalf("%s: %v, %d rows", action, err, len(rows))
		}
		if !strings.HasPrefix(rows[0].Detail, want) || strings.Contains(rows[0].Detail, secret) ||
			strings.Contains(rows[0].Detail, hash) {
			t.Errorf("%s: %q, want %q", action, rows[0].Detail, want)
		}
	}
}
