package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRefusalsAreCountedTogether: a new kind of attempt is due at once, those like it together after a minute, and
// however many kinds there are, the rows stay within their rate and the memory within its bound.
func TestRefusalsAreCountedTogether(t *testing.T) {
	x := newRefusals()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	k := refusalKey{remote: "192.0.2.1", object: "POST /x", why: "401 Invalid token"}
	x.note(k, now)
	if list := x.due(now); len(list) != 1 || list[0].Detail != "401 Invalid token" || list[0].Remote != "192.0.2.1" {
		t.Errorf("the first: %+v", list)
	}
	for i := range 500 {
		x.note(k, now.Add(time.Duration(i)*time.Millisecond))
	}
	if list := x.due(now.Add(30 * time.Second)); len(list) != 0 {
		t.Errorf("half a minute later: %+v", list)
	}
	if list := x.due(now.Add(time.Minute)); len(list) != 1 ||
		list[0].Detail != "401 Invalid token; 500 times since 2030-01-02T03:04:05Z" {
		t.Errorf("a minute later: %+v", list)
	}
	if x.due(now.Add(3 * time.Minute)); len(x.m) != 0 || len(x.of) != 0 {
		t.Errorf("nothing has come for two minutes, and %d are remembered", len(x.m))
	}

	now = now.Add(time.Hour)
	for i := range 5000 {
		x.note(refusalKey{remote: fmt.Sprint(i), object: "POST /x", why: "401"}, now)
	}
	if len(x.m) > maxRefusals+1 {
		t.Errorf("%d kinds are remembered", len(x.m))
	}
	rows := 0
	for s := range 10 {
		rows += len(x.due(now.Add(time.Duration(s) * time.Second)))
	}
	if rows > refusalBurst+1 || rows < refusalBurst {
		t.Errorf("%d rows in 10 s", rows)
	}
}

// TestRefusalsOfLong: forty addresses that try all they can for ten hours leave a few thousand rows, and one address
// that repeats one attempt leaves a row an hour.
func TestRefusalsOfLong(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	run := func(addresses, kinds int) (rows int) {
		x := newRefusals()
		for s := range 3600 {
			at := now.Add(time.Duration(s) * 10 * time.Second)
			for a := range addresses {
				x.note(refusalKey{remote: fmt.Sprint(a), object: fmt.Sprint("POST /", (s+a)%kinds), why: "401"}, at)
			}
			rows += len(x.due(at))
		}
		return rows
	}
	if n := run(40, 90); n > 4000 {
		t.Errorf("forty addresses: %d rows", n)
	}
	if n := run(1, 1); n > 20 || n < 10 {
		t.Errorf("one address: %d rows", n)
	}
}

func TestPlainReason(t *testing.T) {
	for _, x := range [][2]string{
		{"Invalid token", "Invalid token"},
		{"Invalid join token: malformed: byte 'x'", "Invalid join token: malformed"},
		{"Invalid join token: it was made by another cluster (CALLER); this is cluster c",
			"Invalid join token: it was made by another cluster"},
		{"Invalid join token: expired: it was good until 2030-01-02T03:04:05Z", "Invalid join token: expired"},
		{"signed token expired at 2030-01-02T03:04:05Z (now 2030-01-02T03:04:05Z)", "signed token expired"},
		{"signed token kid=CALLER not trusted (unknown kid, expired grace, or never issued)", "signed token kid"},
		{"too many failed attempts; try again in a minute", "too many failed attempts"},
		{"this node was removed from the cluster and its key is refused; start with an empty data directory to…",
			"this node was removed from the cluster and its key is refused"},
	} {
		text, want := x[0], x[1]
		if got := plainReason(text); got != want || strings.Contains(got, "CALLER") {
			t.Errorf("%s: %q", text, got)
		}
	}
}
