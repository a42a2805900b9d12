package backup

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/cluster/backup/buckettest"
	"muster/store"
)

// reach is how the bucket of a server is reached.
func reach(s *buckettest.Server) *access {
	return &access{S3Settings: store.S3Settings{
		Endpoint:  s.URL,
		Region:    "us-east-1",
		PathStyle: store.PathStyleAuto,
		CA:        s.CA,
		Networks:  "any",
	}, AccessKey: s.AccessKey, SecretKey: s.SecretKey}
}

// bucketMaker is a maker that writes to buckets, also on loopback. What it logs is kept.
func bucketMaker(t *testing.T) (*Maker, *fakeStore, *bytes.Buffer) {
	t.Helper()
	m, f := newMaker(t)
	log := &bytes.Buffer{}
	m.Logger = slog.New(slog.NewTextHandler(log, nil))
	m.Loopback = true
	m.open = m.openTarget
	return m, f, log
}

// A backup is written to a bucket in parts, read back from there, found, verified and deleted, with TLS and without.
func TestBucket(t *testing.T) {
	for name, secure := range map[string]bool{"http": false, "https": true} {
		t.Run(name, func(t *testing.T) {
			s := buckettest.Start(t, t.TempDir(), secure)
			m, f, log := bucketMaker(t)
			f.content = bytes.Repeat([]byte("0123456789abcdef"), 1<<20+3) // three parts
			o := order{ID: "one", Name: fileName, Target: "s3://vault/clusters/a", S3: reach(s)}
			if out := m.check(t.Context(), o); out.Reason != "" {
				t.Fatal(out.Reason)
			}
			out, err := m.make(t.Context(), o)
			if err != nil || out.Reason != "" || out.Size != int64(len(f.content)) {
				t.Fatalf("%+v, %v\n%s", out, err, log)
			}
			held, err := os.ReadFile(filepath.Join(s.Dir, "vault/clusters/a", fileName))
			if err != nil || !bytes.Equal(held, f.content) {
				t.Fatalf("the bucket holds %d bytes: %v", len(held), err)
			}
			o.Size, o.SHA256 = out.Size, out.SHA256
			if out := m.verify(t.Context(), o); out.Reason != "" {
				t.Errorf("verify: %+v", out)
			}
			r, size, err := m.read(t.Context(), o)
			if err != nil || size != o.Size {
				t.Fatal(size, err)
			}
			if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, f.content) {
				t.Errorf("%d bytes come back: %v", len(back), err)
			}
			r.Close()
			held[5] ^= 1
			if err := os.WriteFile(filepath.Join(s.Dir, "vault/clusters/a", fileName), held, 0o600); err != nil {
				t.Fatal(err)
			}
			if out := m.verify(t.Context(), o); out.Reason == "" || out.Unread {
				t.Errorf("another byte in it: %+v", out)
			}
			for range 2 { // what is not there is no error
				if out := m.remove(t.Context(), o); out.Reason != "" {
					t.Errorf("remove: %+v", out)
				}
			}
			if out := m.verify(t.Context(), o); out.Reason != errNoFile.Error() || out.Unread {
				t.Errorf("what is gone: %+v", out)
			}
			s.Stop()
			if out := m.verify(t.Context(), o); !out.Unread {
				t.Errorf("a server that is gone says nothing about the file: %+v", out)
			}
			if text := log.String(); strings.Contains(text, s.SecretKey) {
				t.Errorf("the log has the secret:\n%s", text)
			}
		})
	}
}

// Buckets that nothing can be kept in are told apart, and nothing is left in them.
func TestBucketsThatCannot(t *testing.T) {
	s := buckettest.Start(t, t.TempDir(), false)
	secure := buckettest.Start(t, t.TempDir(), true)
	readOnly := buckettest.Start(t, t.TempDir(), false, "--readonly")
	full := buckettest.Start(t, mount(t, "size=4m,mode=0700"), false)
	gone := buckettest.Start(t, t.TempDir(), false)
	gone.Stop()
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(418)
		_, _ = w.Write([]byte("\x1b[31m" + strings.Repeat("<teapot>", 1000)))
	}))
	defer garbage.Close()
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
	}))
	defer away.Close()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	for _, test := range []struct {
		name, target string
		server       *buckettest.Server
		change       func(*access)
		words        string
		later        bool // it is found when something is written
	}{
		{"another bucket", "s3://other", s, nil, "there is no such bucket", false},
		{"another key", "s3://vault", s, func(a *access) { a.AccessKey = "nobody" }, "it ", false},
		{"another secret", "s3://vault", s, func(a *access) { a.SecretKey = "guessed" }, "the secret key is not that", false},
		{"no key", "s3://vault", s, func(a *access) { a.AccessKey, a.SecretKey = "", "" }, "", false},
		{"read-only", "s3://vault", readOnly, nil, "muster may not write to it", false},
		{"full", "s3://vault", full, nil, "there is no room left on it", true},
		{"gone", "s3://vault", gone, nil, "it does not answer", false},
		{"an unknown authority", "s3://vault", secure, func(a *access) { a.CA = "" }, "its certificate is not trusted",
			false},
		{"no such authorities", "s3://vault", secure, func(a *access) { a.CA = "/nowhere" },
			"the file of backup.s3_ca cannot", false},
		{"empty authorities", "s3://vault", secure, func(a *access) { a.CA = empty }, "the file of backup.s3_ca has no",
			false},
		{"in clear where TLS is", "s3://vault", secure, func(a *access) { a.Endpoint = "http" + a.Endpoint[5:] }, "it ",
			false},
		{"TLS where there is none", "s3://vault", s, func(a *access) { a.Endpoint = "https" + a.Endpoint[4:] }, "it ", false},
		{"outside of the networks", "s3://vault", s, func(a *access) {
			a.Endpoint, a.Networks = "https://192.0.2.1:9000", "10.0.0.0/8"
		}, "it cannot be reached: it is ", false},
		{"a metadata service", "s3://vault", s, func(a *access) { a.Endpoint = "http://169.254.169.254" },
			"it cannot be reached: link-local", false},
		{"a server of something else", "s3://vault", s, func(a *access) { a.Endpoint = garbage.URL }, "it answers I'm",
			false},
		{"a redirect", "s3://vault", s, func(a *access) { a.Endpoint = away.URL }, "it ", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, f, log := bucketMaker(t)
			f.content = bytes.Repeat([]byte("x"), 12<<20)
			a := reach(test.server)
			if test.change != nil {
				test.change(a)
			}
			o := order{ID: test.name, Name: fileName, Target: test.target, S3: a}
			fits := func(text string) bool {
				return text != "" && strings.HasPrefix(text, test.words) && len(text) < 200 && !strings.Contains(text, "\x1b")
			}
			if out := m.check(t.Context(), o); test.later != (out.Reason == "") || !test.later && !fits(out.Reason) {
				t.Errorf("check: %q", out.Reason)
			}
			out, err := m.make(t.Context(), o)
			if err != nil || !fits(out.Reason) {
				t.Errorf("make: %q, %v", out.Reason, err)
			}
			t.Log(out.Reason)
			if left, _ := os.ReadDir(filepath.Join(test.server.Dir, "vault")); len(left) > 0 {
				for _, e := range left {
					if strings.HasPrefix(e.Name(), "muster-") {
						t.Errorf("it holds %v", e)
					}
				}
			}
			if strings.Contains(log.String()+out.Reason, test.server.SecretKey) {
				t.Errorf("the secret is told: %s %s", log, out.Reason)
			}
		})
	}
	m, _, _ := bucketMaker(t)
	m.Loopback = false
	if out := m.check(t.Context(), order{Target: "s3://vault", S3: reach(s)}); !strings.Contains(out.Reason, "loopback") {
		t.Errorf("loopback, of a member that is not there: %+v", out)
	}
}

// Credentials may be those of the member: its environment.
func TestBucketByEnvironment(t *testing.T) {
	s := buckettest.Start(t, t.TempDir(), false)
	t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey)
	m, _, _ := bucketMaker(t)
	a := reach(s)
	a.AccessKey, a.SecretKey = "", ""
	if out := m.check(t.Context(), order{Target: "s3://vault", S3: a}); out.Reason != "" {
		t.Error(out.Reason)
	}
}

// A bucket is reached directly: a proxy would decide where its name leads.
func TestBucketWithoutProxy(t *testing.T) {
	for _, secure := range []bool{false, true} {
		tr, err := (access{S3Settings: store.S3Settings{Networks: "10.0.0.0/8"}}).transport(secure, false)
		if err != nil || tr.Proxy != nil {
			t.Errorf("TLS %t: a proxy is used (%v)", secure, err)
		}
	}
}

// A bucket that is slow is waited for; one that says nothing any more is given up, and so is its backup.
func TestSlowBucket(t *testing.T) {
	s := buckettest.Start(t, t.TempDir(), false)
	to, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // it is signed
	}}
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-r.Context().Done():
		}
		forward.ServeHTTP(w, r)
	}))
	defer slow.Close()
	m, f, _ := bucketMaker(t)
	f.content = bytes.Repeat([]byte("y"), 9<<20) // two parts
	a := reach(s)
	a.Endpoint = slow.URL
	o := order{ID: "slow", Name: fileName, Target: "s3://vault", S3: a}
	if out, err := m.make(t.Context(), o); err != nil || out.Reason != "" {
		t.Errorf("a slow one: %+v, %v", out, err)
	}
	o.ID = "silent"
	goOn := s.Pause()
	defer goOn()
	m.stall = 100 * time.Millisecond
	out, err := m.make(t.Context(), o)
	if err != nil || !strings.Contains(out.Reason, "has not answered for") {
		t.Fatalf("%+v, %v", out, err)
	}
	goOn()
	<-m.job.done
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // it gives way to whatever else the machine does
	defer cancel()
	m.stall = stallAfter
	o.ID = "again"
	if out, err := m.make(ctx, o); err != nil || out.Reason != "" {
		t.Errorf("when it goes on: %+v, %v", out, err)
	}
}
