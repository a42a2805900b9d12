package signin

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"muster/internal/addr"
)

// Wherever the issuer is said to be, or sends to, an address that must not be dialled is not.
func TestDials(t *testing.T) {
	var asked atomic.Int64
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "{}", http.StatusNotFound)
	}))
	defer provider.Close()
	for _, loopback := range []bool{false, true} {
		c := New(time.Now, slog.New(slog.DiscardHandler), addr.DialPolicy{Any: true, Loopback: loopback})
		_, err := c.discover(t.Context(), Provider{Issuer: provider.URL})
		if !errors.Is(err, ErrAway) || asked.Load() > 0 != loopback {
			t.Errorf("loopback %t: %v, asked %d times", loopback, err, asked.Load())
		}
	}
	c := New(time.Now, slog.New(slog.DiscardHandler), anywhere)
	if _, err := c.discover(t.Context(), Provider{Issuer: "http://169.254.169.254/"}); !errors.Is(err, ErrAway) {
		t.Error(err)
	}
}
