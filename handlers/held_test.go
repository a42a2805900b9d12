package handlers

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"muster/store"
)

// An answer in memory counts among the bytes of its caller until it has been sent; one beyond them is not begun.
func TestHeldAnswers(t *testing.T) {
	x := newRations(100, 1000)
	send := func(caller string, n int) (*ration, *httptest.ResponseRecorder, bool) {
		r, rec := x.of(caller), httptest.NewRecorder()
		w := &held{ResponseWriter: rec, ration: r}
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(make([]byte, n))
		return r, rec, w.end()
	}
	first, rec, ok := send("a", 60)
	if !ok || rec.Code != http.StatusAccepted || rec.Body.Len() != 60 {
		t.Errorf("%d with %d bytes", rec.Code, rec.Body.Len())
	}
	if _, rec, ok := send("a", 60); ok || rec.Body.Len() > 0 {
		t.Errorf("beyond the bytes of the caller: %d with %d bytes", rec.Code, rec.Body.Len())
	}
	if _, _, ok := send("b", 60); !ok {
		t.Error("another caller has no room")
	}
	first.giveBack()
	if _, _, ok := send("a", 60); !ok {
		t.Error("there is no room once the answer was read")
	}
	if _, rec, ok := send("c", 0); !ok || rec.Code != http.StatusAccepted {
		t.Errorf("without bytes: %d", rec.Code)
	}
}

// What a stream of events writes counts among the unread bytes of its credential while it is written, and a stream for
// which there is no room ends. It keeps no large buffer.
func TestUnreadEvents(t *testing.T) {
	of, to := newRations(10_000, 20_000), newRations(20_000, 20_000)
	s := &Server{answersOf: of, answersTo: to}
	w := newEventWriter(httptest.NewRecorder(), s.unreadOf("a", "192.0.2.1"))
	if err := w.begin(store.Position{}); err != nil {
		t.Fatal(err)
	}
	w.buf = append(w.buf, make([]byte, 9_000)...)
	if err := w.flush(); err != nil || cap(w.buf) > keptBuffer {
		t.Errorf("%v, it keeps %d bytes", err, cap(w.buf))
	}
	other := s.unreadOf("a", "192.0.2.1")
	if !other.take(9_000) {
		t.Error("a stream that has written counts")
	}
	w.buf = append(w.buf, make([]byte, 2_000)...)
	if err := w.flush(); !errors.Is(err, errNoRoom) {
		t.Errorf("beyond the bytes of the credential: %v", err)
	}
	if other.giveBack(); of.taken != 0 || to.taken != 0 {
		t.Errorf("%d and %d bytes are taken", of.taken, to.taken)
	}
}
