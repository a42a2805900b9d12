package handlers

import (
	"net/http"
	"net/http/httptest"
	"testing"
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
