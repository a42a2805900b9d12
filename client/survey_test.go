package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestStaleReads: the reads of a stale Client carry the parameter, except reads without a stale form, and the age of
// each answer is reported.
func TestStaleReads(t *testing.T) {
	m := newMember(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Muster-Known-Leader", "false")
		w.Header().Set("X-Muster-Last-Contact", "1500")
		io.WriteString(w, `{"result":[]}`)
	})
	var ages []Age
	c := clientOf(t, m, m.URL).Stale(func(a Age) { ages = append(ages, a) })
	if _, err := c.Members(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.JWKS(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := Age{Addr: m.URL, Ago: 1500 * time.Millisecond, Known: true}
	if len(ages) != 2 || ages[0] != want {
		t.Errorf("ages %+v, want %+v", ages, want)
	}
	requests, _ := m.seen()
	if len(requests) != 2 || !requests[0].URL.Query().Has("stale") || requests[1].URL.Query().Has("stale") {
		t.Errorf("%d requests, not one with and one without stale", len(requests))
	}
}

// TestSurvey: who answers first and knows a leader is asked next; silent ones are named; nobody is an error.
func TestSurvey(t *testing.T) {
	status := func(leader int) http.HandlerFunc {
		return says(200, fmt.Sprintf(`{"result":{"version":"v","cluster":{"leaderNodeId":%d}}}`, leader))
	}
	led, alone := newMember(t, status(1)), newMember(t, status(0))
	hangs := newMember(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx := context.Background()
	c := clientOf(t, led, closedAddr(t), alone.URL, led.URL)
	if s, err := c.Survey(ctx); err != nil || !s.Leader || c.last.Load() != 2 {
		t.Errorf("with a leader: %+v %v, next %d", s, err, c.last.Load())
	}
	c = clientOf(t, led, hangs.URL, alone.URL)
	if s, err := c.Survey(ctx); err != nil || s.Leader || s.Answered != 1 || len(s.Silent) != 1 ||
		s.Silent[0].Addr != hangs.URL || c.last.Load() != 1 {
		t.Errorf("without a leader: %+v %v, next %d", s, err, c.last.Load())
	}
	var none *NoServerError
	if _, err := clientOf(t, nil, closedAddr(t)).Survey(ctx); !errors.As(err, &none) || len(none.Tried) != 1 {
		t.Errorf("nobody: %v", err)
	}
}

// TestOrStale: the leader is lost between the look for one and the read. A replica answers then; with a leader none
// does.
func TestOrStale(t *testing.T) {
	ages := 0
	for _, leader := range []bool{true, false} {
		m := newMember(t, func(w http.ResponseWriter, r *http.Request) {
			stale := r.URL.Query().Has("stale")
			switch {
			case strings.HasSuffix(r.URL.Path, "/status"):
				says(200, `{"result":{"version":"v","cluster":{"leaderNodeId":0}}}`)(w, r)
			case leader || stale:
				says(200, `{"result":[{"nodeId":1}]}`, "X-Muster-Known-Leader", fmt.Sprint(leader))(w, r)
			default:
				says(503, `{"error":"no cluster leader"}`)(w, r)
			}
		})
		c := clientOf(t, m, m.URL).OrStale(func(Age) { ages++ })
		if list, err := c.Members(context.Background()); err != nil || len(list) != 1 {
			t.Errorf("leader %v: %v %v", leader, list, err)
		}
		requests, _ := m.seen()
		if last := requests[len(requests)-1]; last.URL.Query().Has("stale") == leader {
			t.Errorf("leader %v: the last request is %s", leader, last.URL)
		}
	}
	if ages != 1 {
		t.Errorf("the age was told %d times", ages)
	}
}
