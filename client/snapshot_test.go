package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func snapshotServer(t *testing.T, serve http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return s.URL
}

// A snapshot counts only when its digest is there and right.
func TestSaveSnapshot(t *testing.T) {
	body := []byte("the archive")
	sum := sha256.Sum256(body)
	right := "sha-256=" + base64.StdEncoding.EncodeToString(sum[:])
	for name, x := range map[string]struct{ digest, body, want string }{
		"right":     {right, string(body), ""},
		"changed":   {right, "the Archive", "its digest does not match"},
		"no digest": {"", string(body), "no SHA-256 digest"},
		"another":   {"md5=x", string(body), "no SHA-256 digest"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := snapshotServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RequestURI() != "/v1/operator/snapshot?recipient=age1x&stale=" ||
					r.Header.Get("Authorization") != "Bearer secret" {
					t.Errorf("asked for %s by %s", r.URL, r.Header.Get("Authorization"))
				}
				w.Header().Set("Digest", x.digest)
				_, _ = io.WriteString(w, x.body)
			})
			c, err := New(Config{Addrs: []string{"http://127.0.0.1:1", addr}, Token: "secret"}) // the first one is not there
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			var seen int64
			size, err := c.SaveSnapshot(context.Background(), &out,
				SnapshotOptions{Stale: true, Recipient: "age1x", Progress: func(done, _ int64) { seen = done }})
			if x.want == "" {
				if err != nil || size != int64(len(body)) || seen != size || !bytes.Equal(out.Bytes(), body) {
					t.Errorf("%d bytes, %d seen, %v", size, seen, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v, want %q", err, x.want)
			}
		})
	}
}

// A restore is sent once: to the next address only when the first cannot have got any of it.
func TestRestoreSnapshot(t *testing.T) {
	var got string
	addr := snapshotServer(t, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		got += r.Method + " " + string(data)
		w.Header().Set("X-Muster-Restored", "secrets +1 ~0 -0")
	})
	c, err := New(Config{Addrs: []string{"http://127.0.0.1:1", addr}})
	if err != nil {
		t.Fatal(err)
	}
	changes, err := c.RestoreSnapshot(context.Background(), strings.NewReader("archive"), 7, nil)
	if err != nil || changes != "secrets +1 ~0 -0" || got != "PUT archive" {
		t.Errorf("%q, %v; the server has got %q", changes, err, got)
	}

	broken := snapshotServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 1))
		panic(http.ErrAbortHandler)
	})
	got = ""
	if c, err = New(Config{Addrs: []string{broken, addr}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RestoreSnapshot(context.Background(), strings.NewReader("archive"), 7, nil); !errors.Is(err,
		ErrUnknownOutcome) || got != "" {
		t.Errorf("%v; the next server has got %q", err, got)
	}
	refusing := snapshotServer(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "failed to restore from snapshot: because", http.StatusInternalServerError)
	})
	if c, err = New(Config{Addrs: []string{refusing, addr}}); err != nil {
		t.Fatal(err)
	}
	var refusal *Error
	if _, err := c.RestoreSnapshot(context.Background(), strings.NewReader("archive"), 7, nil); !errors.As(err,
		&refusal) || refusal.Message != "failed to restore from snapshot: because" || got != "" {
		t.Errorf("%v; the next server has got %q", err, got)
	}
}
