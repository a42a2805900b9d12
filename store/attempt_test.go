package store

import (
	"errors"
	"testing"
)

// What a member passes on is carried out once, however often it is repeated, and is answered the same as long as the
// member has what it was told.
func TestAttempts(t *testing.T) {
	l := newTestCluster(t, 1).leader()
	key := func() Actor { return Actor{Name: "test", IdempotencyKey: AutoKey + NewID(), RequestHash: "h"} }
	try := func(actor Actor, a Attempt) (token string, told []byte, err error) {
		a.Epoch += l.Epoch()
		a.Tell = func(made []byte) { told = made }
		actor.Attempt = &a
		made, err := l.JoinTokens.Create(bg, actor, JoinToken{
			ID:        NewID(),
			Format:    FormatMuster,
			MaxUses:   1,
			KeyEpoch:  1,
			ExpiresAt: l.cfg.Now().Add(rememberFor),
		})
		return made.ID, told, err
	}
	rows := func() int { return len(integers(t, l, "SELECT 1 FROM join_tokens")) }
	since := l.Revision()

	first := key()
	token, told, err := try(first, Attempt{Since: since})
	if err != nil || told == nil {
		t.Fatalf("the first attempt: told %q, %v", told, err)
	}
	if again, _, err := try(first, Attempt{Again: true, Since: since, Made: told}); err != nil || again != token {
		t.Errorf("once more: %q, want %q, %v", again, token, err)
	}
	if _, _, err := try(first, Attempt{Again: true, Since: since}); !errors.Is(err, ErrAnswerLost) ||
		!errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("once more, without what was told: %v", err)
	}
	if n := rows(); n != 1 {
		t.Errorf("one request has made %d tokens", n)
	}

	late := key()
	if _, _, err := try(late, Attempt{Again: true, Since: since}); err != nil {
		t.Errorf("the second attempt comes first: %v", err)
	}
	if _, _, err := try(late, Attempt{Since: since}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("the first attempt comes when the second is done: %v", err)
	}
	for _, off := range []uint64{1, ^uint64(0)} {
		if _, _, err := try(key(), Attempt{Epoch: off}); !errors.Is(err, ErrNotLeader) {
			t.Errorf("an attempt for another leadership: %v", err)
		}
	}
	if n := rows(); n != 2 {
		t.Errorf("two requests have made %d tokens", n)
	}
	if n := len(integers(t, l, "SELECT 1 FROM idempotency")); n != 0 {
		t.Errorf("%d answers are remembered in the database", n)
	}

	older := key() // passed on to a leader that knows no attempts
	made, err := l.JoinTokens.Create(bg, older, JoinToken{
		ID:        NewID(),
		Format:    FormatMuster,
		MaxUses:   1,
		KeyEpoch:  1,
		ExpiresAt: l.cfg.Now().Add(rememberFor),
	})
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := try(older, Attempt{Again: true, Since: since}); err != nil || again != made.ID {
		t.Errorf("an answer that an older leader remembers: %q, want %q, %v", again, made.ID, err)
	}
}
