package backup

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"muster/cluster/backup/buckettest"
)

// asUploader in the environment of the test binary makes it one process that writes a backup: the order, as JSON.
const asUploader = "MUSTER_TEST_UPLOAD"

var threeParts = bytes.Repeat([]byte("0123456789abcdef"), 1<<20+3)

// TestUploader is that process; it is no test.
func TestUploader(t *testing.T) {
	text := os.Getenv(asUploader)
	if text == "" {
		t.Skip("it is started by TestKilledWhileUploading")
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	m, f, _ := bucketMaker(t)
	f.content = threeParts
	out, err := m.make(t.Context(), o)
	t.Logf("%+v, %v", out, err)
}

// holdingBack is a proxy that forwards the first part of an upload and no other one; second tells when one comes.
func holdingBack(t *testing.T, to string) (proxy *httptest.Server, second <-chan struct{}) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // it is signed
	}}
	came := make(chan struct{}, 100)
	proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("partNumber") > "1" {
			_, _ = io.Copy(io.Discard, r.Body) // only after that the end of the connection ends the context
			came <- struct{}{}
			<-r.Context().Done()
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy, came
}

// A process is killed while it uploads: no object has the name of the backup, and the parts are gone once another
// member has made the backup under that name, or once it was given up.
func TestKilledWhileUploading(t *testing.T) {
	s := buckettest.Start(t, t.TempDir(), false)
	proxy, second := holdingBack(t, s.URL)
	m, f, _ := bucketMaker(t)
	f.content = threeParts
	o := order{ID: "killed", Name: fileName, Target: "s3://vault/clusters/a", S3: reach(s)}
	through := o
	a := *o.S3
	a.Endpoint = proxy.URL
	through.S3 = &a
	text, err := json.Marshal(through)
	if err != nil {
		t.Fatal(err)
	}
	for what, end := range map[string]func() outcome{
		"another member takes over": func() outcome {
			out, err := m.make(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
		"it is given up": func() outcome { return m.remove(t.Context(), o) },
	} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestUploader$")
		cmd.Env = append(slices.Clone(os.Environ()), asUploader+"="+string(text))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-second:
		case <-time.After(time.Minute):
			t.Error("no second part comes")
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for len(second) > 0 {
			<-second
		}
		if got := uploads(t, m, o); len(got) != 1 {
			t.Fatalf("%s: before that there are the uploads %v", what, got)
		}
		if out := m.verify(t.Context(), o); out.Reason != errNoFile.Error() {
			t.Errorf("%s: half an object has the name: %+v", what, out)
		}
		if out := end(); out.Reason != "" {
			t.Errorf("%s: %+v", what, out)
		}
		if got := uploads(t, m, o); len(got) != 0 {
			t.Errorf("%s: the uploads %v are left", what, got)
		}
		held, err := os.ReadFile(filepath.Join(s.Dir, "vault/clusters/a", fileName))
		if there := err == nil; there != (what != "it is given up") || there && !bytes.Equal(held, threeParts) {
			t.Errorf("%s: %d bytes, %v", what, len(held), err)
		}
		if out := m.remove(t.Context(), o); out.Reason != "" {
			t.Errorf("%s: remove: %+v", what, out)
		}
	}
}

// uploads lists the incomplete uploads in the bucket of an order.
func uploads(t *testing.T, m *Maker, o order) (list []string) {
	t.Helper()
	x, err := m.openTarget(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	b := x.(*bucket)
	for left := range b.client.ListIncompleteUploads(t.Context(), b.name, b.prefix, true) {
		if left.Err != nil {
			t.Fatal(left.Err)
		}
		list = append(list, left.Key)
	}
	return list
}
