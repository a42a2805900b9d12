package handlers_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"muster/handlers/internal/sole"
	"muster/internal/netlimit"
)

// servingTLS runs the API on a real listener of this machine, as muster serve does, and returns its address.
func servingTLS(t testing.TB, limits netlimit.Limits, change ...func(*sole.Config)) (*sole.Member, string) {
	t.Helper()
	limiter := netlimit.New(limits)
	s := sole.New(t, append(change, func(c *sole.Config) { c.Connections = limiter })...)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secure := tls.NewListener(limiter.Listener(l), &tls.Config{NextProtos: []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, secure, s.API()) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s, l.Addr().String()
}

// h2conn is a client of HTTP/2 that says what it likes.
type h2conn struct {
	*tls.Conn
	fr   *http2.Framer
	enc  *hpack.Encoder
	buf  bytes.Buffer
	next uint32
}

func dialH2(t *testing.T, addr string) *h2conn {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	c := &h2conn{Conn: conn, next: 1}
	c.enc = hpack.NewEncoder(&c.buf)
	c.fr = http2.NewFramer(conn, conn)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = c.fr.WriteSettings()
	return c
}

// begin sends the headers of a request and returns its stream.
func (c *h2conn) begin(method, path, token string, end bool) uint32 {
	c.buf.Reset()
	for _, h := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "x"}, {":path", path}} {
		_ = c.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	if token != "" {
		_ = c.enc.WriteField(hpack.HeaderField{Name: "authorization", Value: "Bearer " + token})
	}
	id := c.next
	c.next += 2
	_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndStream: end,
		EndHeaders: true})
	return id
}

// ended waits for the end of the connection and returns why it came; http2.ErrCodeNo when none was said.
func (c *h2conn) ended() (http2.ErrCode, error) {
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			return http2.ErrCodeNo, err
		}
		if away, ok := f.(*http2.GoAwayFrame); ok {
			return away.ErrCode, nil
		}
	}
}

// floods are frames that bring nobody anything. Each function sends some.
var floods = map[string]func(c *h2conn){
	"resets": func(c *h2conn) {
		_ = c.fr.WriteRSTStream(c.begin("GET", "/api/v1/status", "", true), http2.ErrCodeCancel)
	},
	"resets of what fails": func(c *h2conn) {
		_ = c.fr.WriteRSTStream(c.begin("GET", "/nothing", "x", true), http2.ErrCodeCancel)
	},
	"resets that the server makes": func(c *h2conn) {
		_ = c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, c.begin("GET", "/api/v1/openapi.yaml", "", true), make([]byte, 4))
	},
	"requests without a path": func(c *h2conn) {
		_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: []byte{0x82}, EndStream: true,
			EndHeaders: true})
		c.next += 2
	},
	"requests that wait for themselves": func(c *h2conn) {
		id := binary.BigEndian.AppendUint32(nil, c.next)
		_ = c.fr.WriteRawFrame(http2.FrameHeaders,
			http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream|http2.FlagHeadersPriority,
			c.next, append(id, 1, 0x82, 0x87, 0x84))
		c.next += 2
	},
	"settings": func(c *h2conn) { _ = c.fr.WriteSettings() },
	"table": func(c *h2conn) {
		_ = c.fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: c.next})
		c.next += 2
	},
	"window 0": func(c *h2conn) { _ = c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) },
	"pings":    func(c *h2conn) { _ = c.fr.WritePing(false, [8]byte{}) },
	"pongs":    func(c *h2conn) { _ = c.fr.WritePing(true, [8]byte{}) },
	"priority": func(c *h2conn) { _ = c.fr.WritePriority(3, http2.PriorityParam{Weight: 1}) },
	"update":   func(c *h2conn) { _ = c.fr.WriteRawFrame(http2.FramePriorityUpdate, 0, 0, []byte{0, 0, 0, 1, 'u'}) },
	"windows":  func(c *h2conn) { _ = c.fr.WriteWindowUpdate(0, 1) },
	"unknown":  func(c *h2conn) { _ = c.fr.WriteRawFrame(77, 0, 0, nil) },
	"goodbyes": func(c *h2conn) { _ = c.fr.WriteRawFrame(77, 0xff, 9, make([]byte, 100)) },
	"no data":  func(c *h2conn) { _ = c.fr.WriteData(c.body(), false, nil) },
	"a byte":   func(c *h2conn) { _ = c.fr.WriteData(c.body(), false, []byte{' '}) },
	"long heads": func(c *h2conn) {
		c.buf.Reset()
		_ = c.enc.WriteField(hpack.HeaderField{Name: ":method", Value: "GET"})
		c.buf.Write(bytes.Repeat([]byte{0x80 | 32}, 12<<10)) // of the static table: cookie, without a value
		_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: c.buf.Bytes(), EndStream: true,
			EndHeaders: true})
		c.next += 2
	},
	"heads in pieces": func(c *h2conn) {
		c.buf.Reset()
		_ = c.enc.WriteField(hpack.HeaderField{Name: ":method", Value: "GET"})
		_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: c.buf.Bytes(), EndStream: true})
		for range 100 {
			_ = c.fr.WriteContinuation(c.next, false, nil)
		}
		_ = c.fr.WriteContinuation(c.next, true, nil)
		c.next += 2
	},
}

// body returns the stream of a request that goes on.
func (c *h2conn) body() uint32 {
	if c.next < 1001 {
		c.next = 1001
		return c.begin("POST", "/api/v1/cluster/join-tokens", "", false)
	}
	return 1001
}

// A connection that sends frames which bring nobody anything is ended, before and after its client has shown a
// credential; others go on.
func TestFrameFloods(t *testing.T) {
	s, addr := servingTLS(t, netlimit.Limits{Bytes: 100_000_000})
	other := dialH2(t, addr)
	for name, flood := range floods {
		for _, token := range []string{"", s.Admin} {
			t.Run(fmt.Sprintf("%s/known %v", name, token != ""), func(t *testing.T) {
				c := dialH2(t, addr)
				if token != "" {
					c.begin("GET", "/api/v1/cluster/members", token, true)
				}
				stop := make(chan struct{})
				defer close(stop)
				go func() {
					for {
						select {
						case <-stop:
							return
						default:
							flood(c)
						}
					}
				}()
				code, err := c.ended()
				if code != http2.ErrCodeEnhanceYourCalm &&
					(err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err)) {
					t.Errorf("%v %v", code, err)
				}
			})
		}
	}
	id := other.begin("GET", "/api/v1/status", "", true)
	for {
		f, err := other.fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header().StreamID == id && f.Header().Flags.Has(http2.FlagDataEndStream) {
			break
		}
	}
	if n := metric(t, s, `muster_http_sent_away_total{limit="frames"}`); n < len(floods) {
		t.Errorf("%d connections were counted", n)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// metric reads a number from /metrics.
func metric(t *testing.T, s *sole.Member, name string) (n int) {
	t.Helper()
	body := s.Call("GET", "/metrics", "", "").Body.String()
	i := strings.Index(body, name+" ")
	if i < 0 {
		t.Fatalf("there is no %s", name)
	}
	_, _ = fmt.Sscan(body[i+len(name):], &n)
	return n
}

// What clients do that want something is no flood: many requests on one connection, large answers and bodies, bodies in
// pieces, requests that are given up.
func TestFramesOfClients(t *testing.T) {
	s, addr := servingTLS(t, netlimit.Limits{Bytes: 100_000_000})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
		MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 60 * time.Second}
	do := func(ctx context.Context, method, path string, body io.Reader) (int, error) {
		r, err := http.NewRequestWithContext(ctx, method, "https://"+addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.Admin)
		resp, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	ok := func(method, path string, body io.Reader) {
		t.Helper()
		if status, err := do(t.Context(), method, path, body); err != nil || status >= 300 {
			t.Fatalf("%s %s: %d %v", method, path, status, err)
		}
	}
	for range 2000 {
		ok("GET", "/api/v1/cluster/members", nil)
	}
	for range 200 {
		ok("GET", "/api/v1/openapi.yaml", nil)
	}
	pieces := slices.Repeat([]byte(" "), 500)
	for range 20 {
		ok("POST", "/api/v1/cluster/join-tokens", io.MultiReader(bytes.NewReader(pieces), strings.NewReader("{}")))
	}
	for range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, _ = do(ctx, "GET", "/v1/peerings?index=1000000&wait=10s", nil)
		cancel()
	}
	ok("GET", "/api/v1/cluster/members", nil)
	if n := metric(t, s, `muster_http_sent_away_total{limit="frames"}`); n != 0 {
		t.Errorf("%d connections were ended", n)
	}
}

// asker sends requests over one connection, while it is there.
type asker struct {
	t      *testing.T
	client *http.Client
	addr   string
	reused bool // the last one went over a connection that was there
}

func newAsker(t *testing.T, addr string) *asker {
	a := &asker{t: t, addr: addr, client: &http.Client{Timeout: 30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}}
	t.Cleanup(a.client.CloseIdleConnections)
	return a
}

// ask sends a request and returns the status of the answer. A connection that the server has closed, which the client
// may not have noticed, is replaced by another one.
func (a *asker) ask(method, path, token, body string) int {
	a.t.Helper()
	ctx := httptrace.WithClientTrace(a.t.Context(),
		&httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { a.reused = c.Reused }})
	r, err := http.NewRequestWithContext(ctx, method, "https://"+a.addr+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := a.client.Do(r)
	if errors.Is(err, io.EOF) && a.reused {
		r.Body, _ = r.GetBody()
		resp, err = a.client.Do(r)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// A connection whose credential is good no more is a stranger's again: it gives way to the next one.
func TestConnectionOfARevokedCredential(t *testing.T) {
	s, addr := servingTLS(t, netlimit.Limits{PerAddress: 1})
	w := s.Call("POST", "/api/v1/api-tokens", s.Admin, `{"name":"x","scopes":["cluster:read"]}`)
	var made struct{ Result struct{ ID, Token string } }
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	a := newAsker(t, addr)
	const path = "/api/v1/cluster/members"
	if status := a.ask("GET", path, made.Result.Token, ""); status != 200 {
		t.Fatal(status)
	}
	dialH2(t, addr)
	if status := a.ask("GET", path, made.Result.Token, ""); status != 200 || !a.reused {
		t.Fatalf("%d, over the same connection: %v", status, a.reused)
	}
	if w := s.Call("DELETE", "/api/v1/api-tokens/"+made.Result.ID, s.Admin, ""); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if status := a.ask("GET", path, made.Result.Token, ""); status != 401 || !a.reused {
		t.Fatalf("%d, over the same connection: %v", status, a.reused)
	}
	dialH2(t, addr) // takes the place of the older stranger
	dialH2(t, addr)
	if status := a.ask("GET", path, made.Result.Token, ""); status != 401 || a.reused {
		t.Fatalf("%d, over the same connection: %v", status, a.reused)
	}
}

// A machine that has joined has shown a credential, though it stood in the body; one that was refused has not.
func TestConnectionOfAJoin(t *testing.T) {
	s, addr := servingTLS(t, netlimit.Limits{PerAddress: 1})
	w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, `{"maxUses":9}`)
	var made struct{ Result struct{ Token string } }
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	a, c := newAsker(t, addr), newCandidate(t, made.Result.Token, false)
	const path = "/api/v1/cluster/join"
	for _, x := range []struct {
		token string
		want  int
	}{{"wrong", 401}, {made.Result.Token, 200}} {
		body := c.with("token", x.token)
		if status := a.ask("POST", path, "", body); status != x.want {
			t.Fatalf("%s: %d", x.token, status)
		}
		dialH2(t, addr)
		if status := a.ask("POST", path, "", body); status != x.want || a.reused != (x.want == 200) {
			t.Errorf("%s: %d, over the same connection: %v", x.token, status, a.reused)
		}
	}
}
