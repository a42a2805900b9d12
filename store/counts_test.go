package store

import (
	"errors"
	"fmt"
	"testing"
)

// A limit holds to the row, however rarely rows are counted: also when additions have failed, when rows have gone, and
// when the limit has moved.
func TestCountsHoldTheLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t, migratedDB(t))
	known := &counts{}
	mint := func(limit uint64, fail error) error {
		_, err := b.write(func(tx *Tx) error {
			tx.counts = known
			if err := tx.exec(putSetting, SettingLimitJoinTokens, fmt.Sprint(limit), tx.Rev); err != nil {
				return err
			}
			if err := tx.boundJoinTokens("me", 0); err != nil {
				return err
			}
			k := JoinToken{
				ID:        NewID(),
				Format:    FormatMuster,
				MaxUses:   1,
				CreatedBy: "me",
				CreatedAt: b.now,
				ExpiresAt: b.now,
			}
			return errors.Join(tx.insertJoinToken(&k, "{}"), fail)
		})
		return err
	}
	var full *Refusal
	refused := func(err error) bool { return errors.As(err, &full) && full.Code == Full }
	for i := range 300 {
		if err := mint(300, nil); err != nil {
			t.Fatalf("token %d of 300: %v", i+1, err)
		}
	}
	if err := mint(300, nil); !refused(err) {
		t.Errorf("one more than 300: %v", err)
	}
	if err := mint(302, errors.New("later")); err == nil || refused(err) {
		t.Errorf("one that fails for another reason: %v", err)
	}
	for range 2 {
		if err := mint(302, nil); err != nil {
			t.Errorf("where 2 more are allowed: %v", err)
		}
	}
	if err := mint(302, nil); !refused(err) {
		t.Errorf("one more than 302: %v", err)
	}
	b.exec("DELETE FROM join_tokens WHERE id = (SELECT min(id) FROM join_tokens)")
	if err := mint(302, nil); err != nil {
		t.Errorf("where one has gone: %v", err)
	}
	if err := mint(10, nil); !refused(err) {
		t.Errorf("where the limit is less than there are: %v", err)
	}
}

// BenchmarkTriedMint is what the writer does for a join token on the working copy, beside as many as there are already.
// It is the budget of a request: see DESIGN.md.
func BenchmarkTriedMint(b *testing.B) {
	for _, there := range []int{10, 10_000} {
		b.Run(fmt.Sprint(there, " tokens"), func(b *testing.B) {
			w := newBench(b, migratedDB(b))
			known := &counts{}
			mint := func() {
				k := JoinToken{
					ID:        NewID(),
					Format:    FormatMuster,
					MaxUses:   1,
					CreatedBy: "me",
					CreatedAt: w.now,
					ExpiresAt: w.now,
				}
				if _, err := w.write(func(tx *Tx) error {
					tx.counts = known
					return errors.Join(tx.boundJoinTokens("me", 0), tx.insertJoinToken(&k, "{}"),
						tx.audit("join_token.create", "join_token/"+k.ID, ""))
				}); err != nil {
					b.Fatal(err)
				}
			}
			w.exec(putSetting, SettingLimitJoinTokens, "1000000", 1)
			n := 0
			batched := func() { // what a transaction has changed beyond the page cache is written out before its end
				if n++; n%64 == 1 {
					w.exec("BEGIN")
				}
				if mint(); n%64 == 0 {
					w.exec("COMMIT")
				}
			}
			for range there {
				batched()
			}
			b.ReportAllocs()
			for b.Loop() {
				batched()
			}
		})
	}
}
