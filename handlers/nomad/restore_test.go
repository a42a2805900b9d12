package nomad_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// archiveOfZeros unpacks to a state of so many bytes.
func archiveOfZeros(t *testing.T, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	err := w.WriteHeader(&tar.Header{Name: "state.bin", Typeflag: tar.TypeReg, Mode: 0o600, Size: size})
	for range size >> 20 {
		if err == nil {
			_, err = w.Write(make([]byte, 1<<20))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	zip.Close()
	return b.Bytes()
}

// A restore is bounded by the setting and by the room on the disk, one runs at a time, and what is refused changes
// nothing.
func TestRestoreLimits(t *testing.T) {
	room := func() int64 { return 1 << 40 }
	s := sole.New(t, func(c *sole.Config) {
		c.RestoreLimit, c.Cluster.Room = 32<<20, func() int64 { return room() }
	})
	call := func(method string, body []byte) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/v1/operator/snapshot", bytes.NewReader(body))
		r.Header.Set("X-Nomad-Token", s.Admin)
		w := httptest.NewRecorder()
		s.API().ServeHTTP(w, r)
		return w
	}
	saved := call(http.MethodGet, nil)
	good, err := io.ReadAll(saved.Body)
	if saved.Code != 200 || err != nil {
		t.Fatal(saved.Code, err)
	}
	refused := func(name string, body []byte, status int, want string) {
		t.Helper()
		if w := call(http.MethodPut, body); w.Code != status || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %d %q", name, w.Code, w.Body, status, want)
		}
	}
	refused("beyond the setting", archiveOfZeros(t, 40<<20), 500, "accepts at most 33554432")
	room = func() int64 { return 1 << 16 }
	refused("no room", good, 500, "does not have this much disk space")
	asked, answer, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	room = func() int64 {
		asked <- struct{}{}
		<-answer
		return 1 << 16
	}
	go func() {
		defer close(done)
		refused("the first one", good, 500, "does not have this much disk space")
	}()
	<-asked
	refused("another one", good, 503, "another restore is under way")
	close(answer)
	<-done
	room = func() int64 { return 1 << 40 }
	for range 2 {
		if w := call(http.MethodPut, good); w.Code != 200 || w.Body.Len() > 0 {
			t.Errorf("a good archive: %d %s", w.Code, w.Body)
		}
	}
}
