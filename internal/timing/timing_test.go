package timing

import (
	"context"
	"testing"
	"time"
)

func TestLaterAndEarlier(t *testing.T) {
	a := time.Unix(1, 0)
	b := a.Add(time.Nanosecond)
	if Later(a, b) != b || Later(b, a) != b || Earlier(a, b) != a || Earlier(b, a) != a {
		t.Error("the times are mixed up")
	}
}

func TestRest(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if !Rest(ctx, time.Nanosecond) {
		t.Error("it has not slept to the end")
	}
	cancel()
	if Rest(ctx, time.Hour) {
		t.Error("it sleeps on after the end of its context")
	}
}
