package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/internal/netlimit"
	"muster/store"
)

// statuses returns the status of each answer whose headers come, until the connection ends.
func (c *h2conn) statuses() <-chan string {
	out := make(chan string, 1000)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	go func() {
		defer close(out)
		for {
			f, err := c.fr.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				out <- h.PseudoValue("status")
			}
		}
	}()
	return out
}

func next(t *testing.T, statuses <-chan string) string {
	t.Helper()
	select {
	case status, ok := <-statuses:
		if ok {
			return status
		}
	case <-time.After(sole.Generous):
	}
	t.Fatal("no answer")
	return ""
}

// A caller with a scope that takes nothing of its answers gets no more of them, short or long; another credential at
// another member of the same address does, and so does the caller itself once it has read or left.
func TestUnreadAnswersOfACredential(t *testing.T) {
	t.Parallel()
	s, addr := servingTLS(t, netlimit.Limits{})
	token, other := s.Token(store.ScopeClusterRead), s.Token(store.ScopeClusterRead)
	const places = 10
	for name, path := range map[string]string{"short": "/api/v1/status", "long": "/api/v1/openapi.yaml"} {
		s.BoundAnswers(places*handlers.AnswerCost+handlers.AnswerCost/2, 1<<20, 1<<20)
		c := dialH2(t, addr)
		_ = c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		statuses := c.statuses()
		refused := false
		for range 5 * places {
			c.begin("GET", path, token, true)
			refused = next(t, statuses) == "503" || refused
		}
		if !refused {
			t.Errorf("%s answers: none is refused", name)
		}
		if w := s.Call("GET", "/api/v1/status", other, ""); w.Code != http.StatusOK {
			t.Errorf("%s answers: another caller gets %d", name, w.Code)
		}
		w := s.Call("GET", "/api/v1/cluster/members", token, "")
		if body := w.Body.String(); w.Code != http.StatusServiceUnavailable || !strings.Contains(body, "waits to be read") ||
			w.Header().Get("Retry-After") == "" {
			t.Errorf("%s answers: the caller gets %d %s", name, w.Code, body)
		}
		if n := metric(t, s, `muster_http_sent_away_total{limit="answers"}`); n == 0 {
			t.Errorf("%s answers: the metric is 0", name)
		}
		c.Close()
		sole.Until(t, "the room for answers is free again", func() bool { return s.UnreadBytes() == 0 })
		if w := s.Call("GET", "/api/v1/status", token, ""); w.Code != http.StatusOK {
			t.Errorf("%s answers: afterwards the caller gets %d", name, w.Code)
		}
	}
}
