package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// storyteller is a member that tells events 1.1, 2.1, … up to last, from Last-Event-ID on, and breaks the stream as
// told.
type storyteller struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []string // Last-Event-ID of each request
	answer func(w http.ResponseWriter, n, from int)
}

func newStoryteller(t *testing.T, answer func(w http.ResponseWriter, n, from int)) *storyteller {
	s := &storyteller{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Header.Get("Last-Event-ID"))
		n := len(s.asked)
		s.mu.Unlock()
		from := 0
		_, _ = fmt.Sscanf(r.Header.Get("Last-Event-ID"), "%d", &from)
		s.answer(w, n, from)
	}))
	t.Cleanup(s.Close)
	return s
}

func tell(w http.ResponseWriter, from, to int) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, "retry: 1000\nid: %d.1\n\n", from)
	for i := from + 1; i <= to; i++ {
		fmt.Fprintf(w, ": still here\n\nid: %d.1\nevent: token\ndata: {\"revision\":%d,\"seq\":1,\"action\":\"a\"}\n\n", i, i)
	}
	w.(http.Flusher).Flush()
}

var errEnough = errors.New("enough")

// watchUntil collects revisions until there are n.
func watchUntil(c *Client, n int, after string) (got []uint64, err error) {
	err = c.Watch(context.Background(), WatchOptions{After: after}, func(e Event) error {
		got = append(got, e.Revision)
		if len(got) == n {
			return errEnough
		}
		return nil
	})
	return got, err
}

// TestWatchGoesOn: streams that end, break in the middle of an event or drop the reader, members that are down or
// without a leader: each event is told once and in order.
func TestWatchGoesOn(t *testing.T) {
	a := newStoryteller(t, func(w http.ResponseWriter, n, from int) {
		switch n {
		case 1:
			tell(w, from, from+3)
			fmt.Fprint(w, "id: 4.1\nevent: token\ndata: {\"revi") // never told: the line that ends it is missing
		case 2:
			http.Error(w, `{"error":"no cluster leader"}`, http.StatusServiceUnavailable)
		case 3:
			http.Error(w, `{"error":"revision 5 is in the future"}`, http.StatusBadRequest) // a member that is behind
		default:
			tell(w, from, from+2)
			fmt.Fprintf(w, "id: %d.1\nevent: dropped\ndata: {}\n\n", from+2)
		}
	})
	b := newStoryteller(t, func(w http.ResponseWriter, n, from int) { tell(w, from, from+1) })
	down := httptest.NewServer(nil)
	down.Close()
	c, err := New(Config{Addrs: []string{a.URL, down.URL, b.URL}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := watchUntil(c, 12, "")
	if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; !errors.Is(err, errEnough) || !slices.Equal(got, want) {
		t.Errorf("told %v, %v", got, err)
	}
	if a.asked[0] != "" || len(a.asked) < 4 || slices.Contains(a.asked[1:], "") {
		t.Errorf("asked after %q", a.asked)
	}
}

// TestWatchRefused: what no repetition can mend is the error that Watch returns.
func TestWatchRefused(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410} {
		a := newStoryteller(t, func(w http.ResponseWriter, n, from int) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":"no"}`)
		})
		c, err := New(Config{Addrs: []string{a.URL}})
		if err != nil {
			t.Fatal(err)
		}
		var refusal *Error
		if _, err := watchUntil(c, 1, "7.1"); !errors.As(err, &refusal) || refusal.Status != status || len(a.asked) != 1 ||
			a.asked[0] != "7.1" {
			t.Errorf("%d: %v, asked %q", status, err, a.asked)
		}
	}
	// A gap is not passed over in silence either when it comes in the middle.
	a := newStoryteller(t, func(w http.ResponseWriter, n, from int) {
		if n == 1 {
			tell(w, from, from+1)
			return
		}
		w.WriteHeader(410)
		fmt.Fprint(w, `{"error":"the events after 1.1 are no longer kept"}`)
	})
	c, _ := New(Config{Addrs: []string{a.URL}})
	if got, err := watchUntil(c, 5, ""); err == nil || !strings.Contains(err.Error(), "no longer kept") || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	down := httptest.NewServer(nil)
	down.Close()
	c, _ = New(Config{Addrs: []string{down.URL}})
	if _, err := watchUntil(c, 1, ""); !errors.Is(err, ErrNoServer) {
		t.Errorf("nobody is there: %v", err)
	}
}
