package store

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestTokenState walks the states of a join token: the list, the metric and the view of the sqlite3 prompt agree, and a
// joiner is told the same.
func TestTokenState(t *testing.T) {
	t.Parallel()
	rotate := func(grace time.Duration) func(*testing.T, *bench, *JoinToken) {
		return func(t *testing.T, b *bench, _ *JoinToken) {
			until := b.now.Add(grace)
			keep := &until
			if grace < 0 {
				keep = nil // as a removal does
			}
			seal := func(string, []byte) ([]byte, uint64, error) { return []byte("sealed"), 1, nil }
			b.must(t, func(tx *Tx) error {
				return tx.rotateKeys([]NewKey{{Purpose: KeyJoinHMAC, KID: "next", Secret: []byte("next")}}, keep, seal)
			})
		}
	}
	for _, c := range []struct {
		name   string
		change func(*testing.T, *bench, *JoinToken)
		state  string
		told   string // to a joiner; "" when it is let in
	}{
		{"fresh", func(*testing.T, *bench, *JoinToken) {}, TokenValid, ""},
		{"used", func(t *testing.T, b *bench, k *JoinToken) {
			b.must(t, func(tx *Tx) error { return tx.useToken(k, 9, "", Actor{}) })
		}, TokenUsed, "already used"},
		{"expired", func(_ *testing.T, b *bench, k *JoinToken) { b.now = k.ExpiresAt.Add(time.Second) }, TokenExpired,
			"expired"},
		{"revoked", func(t *testing.T, b *bench, k *JoinToken) {
			b.must(t, func(tx *Tx) error {
				return tx.exec("UPDATE join_tokens SET revoked_at = ? WHERE id = ?", tx.Now, k.ID)
			})
		}, TokenRevoked, "revoked"},
		{"rotated, in grace", rotate(time.Minute), TokenValid, ""},
		{"rotated without grace", rotate(0), TokenSuperseded, "superseded"},
		{"a member was removed", rotate(-1), TokenSuperseded, "superseded"},
		{"grace is over", func(t *testing.T, b *bench, k *JoinToken) {
			rotate(time.Minute)(t, b, k)
			b.now = b.now.Add(time.Minute)
		}, TokenSuperseded, "superseded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := foundedBench(t, "10.0.0.0/16", 28)
			b.now = time.Now().UTC().Truncate(time.Second) // the view has SQLite's clock
			k := JoinToken{
				ID:        NewID(),
				Format:    FormatMuster,
				KeyEpoch:  1,
				MaxUses:   1,
				ExpiresAt: b.now.Add(time.Hour),
				CreatedAt: b.now,
			}
			b.must(t, func(tx *Tx) error {
				if err := tx.activeEpoch(&k); err != nil {
					return err
				}
				return tx.insertJoinToken(&k, "{}")
			})
			c.change(t, b, &k)
			v := b.view()
			got, err := v.joinToken(k.ID)
			if err != nil || got.State(b.now) != c.state {
				t.Fatalf("the list says %v: %v", got, err)
			}
			counted, err := v.counts(countJoinTokens, rfc3339(b.now), rfc3339(b.now))
			if err != nil || counted[[2]string{"join", c.state}] != 1 {
				t.Errorf("the metric says %v: %v", counted, err)
			}
			want := 0
			if c.state == TokenValid {
				want = 1
			}
			if n, err := v.validTokens(); err != nil || n != want {
				t.Errorf("%d valid tokens, not %d: %v", n, want, err)
			}
			var state string
			if _, err := v.get("SELECT state FROM v_tokens WHERE id = ?", []any{k.ID}, &state); err != nil {
				t.Fatal(err)
			}
			if ahead := b.now.After(time.Now()); !ahead && state != c.state {
				t.Errorf("the view says %s", state)
			}
			_, err = b.write(func(tx *Tx) error {
				_, err := tx.join(Joiner{TokenID: k.ID, Member: Member{
					Name:          "new",
					Mode:          ModeFull,
					RaftAddress:   "127.0.0.1:7009",
					APIAddress:    "127.0.0.1:5009",
					AdvertiseAddr: "127.0.0.1",
					Recipient:     "age1new",
				}}, NewID(), Actor{Remote: "127.0.0.1"})
				return err
			})
			if (c.told == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.told) {
				t.Errorf("the joiner is told %v, not %q", err, c.told)
			}
		})
	}
}

// TestTokenOfOldKey: a token is never made with a key that has been replaced while it was being prepared.
func TestTokenOfOldKey(t *testing.T) {
	t.Parallel()
	b := foundedBench(t, "10.0.0.0/16", 28)
	_, err := b.write(func(tx *Tx) error { return tx.activeEpoch(&JoinToken{Format: FormatMuster, KeyEpoch: 2}) })
	if !errors.Is(err, ErrKeyMoved) {
		t.Errorf("%v", err)
	}
}

func (b *bench) must(t *testing.T, fn func(*Tx) error) {
	t.Helper()
	if _, err := b.write(fn); err != nil {
		t.Fatal(err)
	}
}
