package client

import (
	"bytes"
	"net/http"
	"testing"
)

// FuzzEvents feeds streams of events, and answers with errors, as a server that went wrong sends them.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("id: 1.2\nevent: x\ndata: {\"revision\":1,\"seq\":2}\n\n"), "text/event-stream")
	f.Add([]byte("event: dropped\n\ndata\n:\n\n"), "application/json")
	f.Add([]byte(`{"error":"x","message":"y"}`), "text/plain")
	f.Add([]byte("data: {\ndata: }\n\n"), "9223372037")
	f.Fuzz(func(t *testing.T, data []byte, kind string) {
		events, lines := 0, 0
		w := &watch{fn: func(Event) error { events++; return nil }}
		if err := w.read(bytes.NewReader(data), func() { lines++ }); err == nil {
			t.Fatal("a stream has no end")
		}
		if events > lines || lines > bytes.Count(data, []byte("\n"))+1 {
			t.Fatalf("%d events of %d lines", events, lines)
		}
		resp := &http.Response{StatusCode: 500, Header: http.Header{"Content-Type": {kind}, "Retry-After": {kind}}}
		if e := answerError(resp, data); e.Message == "" || e.RetryAfter < -1 {
			t.Fatalf("%+v", e)
		}
	})
}
