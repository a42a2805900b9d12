package e2e

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// rss is how much memory a member has, in bytes.
func (m *member) rss(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// attacker opens connections to an address of a member and never takes anything.
type attacker struct {
	addr string
	mu   sync.Mutex
	open []net.Conn
}

func (a *attacker) dial(proto string) net.Conn {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", a.addr,
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}})
	if err != nil {
		return nil // there is no room for it, as it should be
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open = append(a.open, c)
	return c
}

func (a *attacker) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.open {
		c.Close()
	}
	a.open = nil
}

// crowd does something n times, a few at once.
func crowd(n int, f func(i int)) {
	work := make(chan int)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range work {
				f(i)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
}

func (a *attacker) say(text string) {
	if c := a.dial("http/1.1"); c != nil {
		_, _ = io.WriteString(c, text)
	}
}

// h2frame is one frame of HTTP/2 (RFC 9113, section 4.1).
func h2frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	head := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16),
		byte(stream >> 8), byte(stream)}
	return append(head, payload...)
}

// windowless asks over HTTP/2 for more than it takes: its window is 0.
func (a *attacker) windowless(path string, streams int) {
	c := a.dial("h2")
	if c == nil {
		return
	}
	const settings, headers, initialWindow, endOfAll = 4, 1, 4, 5
	out := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	out = append(out, h2frame(settings, 0, 0, []byte{0, initialWindow, 0, 0, 0, 0})...)
	var block []byte // literals without indexing (RFC 7541, section 6.2.2)
	for _, h := range []string{":method", "GET", ":scheme", "https", ":authority", "x", ":path", path} {
		if h[0] == ':' {
			block = append(block, 0)
		}
		block = append(append(block, byte(len(h))), h...)
	}
	for i := range streams {
		out = append(out, h2frame(headers, endOfAll, uint32(2*i+1), block)...)
	}
	_, _ = c.Write(out)
}

// frames floods an HTTP/2 connection with frames that are no requests, or with requests that it gives up, until it is
// ended.
func (a *attacker) frames(kind int) {
	c := a.dial("h2")
	if c == nil {
		return
	}
	const settings, ping, reset, window, headers, endOfAll = 4, 6, 3, 8, 1, 5
	out := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), h2frame(settings, 0, 0, nil)...)
	for i := range 20_000 {
		id := uint32(2*i + 1)
		switch kind % 4 {
		case 0:
			out = append(out, h2frame(settings, 0, 0, nil)...)
		case 1:
			out = append(out, h2frame(ping, 0, 0, make([]byte, 8))...)
		case 2:
			out = append(out, h2frame(window, 0, 0, []byte{0, 0, 0, 1})...)
		default: // :method GET, :scheme https, :path /, all indexed (RFC 7541, appendix A)
			out = append(append(out, h2frame(headers, endOfAll, id, []byte{0x82, 0x87, 0x84, 0x41, 1, 'x'})...),
				h2frame(reset, 0, id, []byte{0, 0, 0, 8})...)
		}
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = c.Write(out)
	_, _ = io.Copy(io.Discard, c)
}

// A stranger at one address can neither take the memory of a member nor keep others out, whatever it holds.
func TestHostileClients(t *testing.T) {
	c := newCluster(t, 1)
	m := c.members[0]
	u := c.admin(t)
	served := func(what string) {
		t.Helper()
		if o := (command{limit: formed}).run(t, "members", "--data", m.dir); o.code != 0 {
			t.Errorf("%s: muster members: %d %s", what, o.code, o.stderr)
		}
		if a := u.do(m, "GET", "/api/v1/cluster/members", ""); a.status != 200 {
			t.Errorf("%s: %v", what, a)
		}
	}
	served("before")
	nothing := "ApiKey " + u.apiKey(t, m, `{"name":"nothing","role_descriptors":{"x":{"cluster":[]}}}`).Encoded
	for _, x := range []struct {
		name string
		do   func(*attacker)
	}{
		{"filters", func(a *attacker) {
			filter := url.QueryEscape(strings.Repeat("(", 12))
			crowd(250, func(int) { a.say("GET /v1/peerings?filter=" + filter + " HTTP/1.1\r\nHost: x\r\n\r\n") })
		}},
		{"paths", func(a *attacker) {
			crowd(50, func(int) {
				a.say("GET /?filter_path=" + strings.Repeat("**.", 2000) +
					"x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n")
			})
		}},
		{"windows", func(a *attacker) { crowd(40, func(int) { a.windowless("/api/v1/openapi.yaml", 250) }) }},
		{"windows of all that is open", func(a *attacker) {
			open := []string{"/metrics", "/.well-known/http.crl", "/.well-known/transport.crl", "/.well-known/jwks.json", "/ui/",
				"/ui/app.js", "/api/v1/status"}
			crowd(10*len(open), func(i int) { a.windowless(open[i%len(open)], 100) })
		}},
		{"bodies of a key without scopes", func(a *attacker) {
			part := strings.Repeat("x", 990_000)
			crowd(300, func(int) {
				a.say("POST /v1/peering/token HTTP/1.1\r\nHost: x\r\nAuthorization: " + nothing +
					"\r\nContent-Length: 1000000\r\n\r\n" + part)
			})
		}},
		{"joins of many values", func(a *attacker) {
			body := `{"gpus":[` + strings.TrimSuffix(strings.Repeat("{},", 330_000), ",") + "]}"
			crowd(60, func(int) {
				a.say(fmt.Sprintf("POST /api/v1/cluster/join HTTP/1.1\r\nHost: x\r\nContent-Type: "+
					"application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
			})
		}},
		{"half-sent", func(a *attacker) {
			crowd(2000, func(int) {
				a.say("POST /api/v1/cluster/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
					"100000\r\n\r\n" + strings.Repeat("x", 1000))
			})
		}},
		{"blocking", func(a *attacker) {
			crowd(2000, func(int) {
				a.say("GET /v1/peerings?index=1&wait=10m HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
			})
		}},
		{"frames", func(a *attacker) { crowd(64, a.frames) }},
		{"idle", func(a *attacker) { crowd(3000, func(int) { a.dial("h2") }) }},
	} {
		a := &attacker{addr: m.api}
		before := m.rss(t)
		x.do(a)
		served(x.name)
		most := 60 << 20
		if x.name == "windows of all that is open" { // answers to all its streams are made before their windows open
			most = 120 << 20
		}
		if more := m.rss(t) - before; more > most {
			t.Errorf("%s: the member has %d MB more", x.name, more>>20)
		} else {
			t.Logf("%s: %d MB more", x.name, more>>20)
		}
		a.end()
	}
	a := &attacker{addr: m.api}
	defer a.end()
	crowd(1600, func(i int) {
		switch {
		case i < 1000:
			a.say("POST /api/v1/cluster/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
				"100\r\n\r\n{")
		case i < 1500:
			a.dial("h2")
		default:
			a.say("GET /v1/peerings?filter=" + strings.Repeat("(", 12) + " HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	})
	begin := time.Now()
	served("all at once")
	t.Logf("served after %v", time.Since(begin).Round(time.Millisecond))
}

// What comes to the cluster listener before anybody has shown who it is takes little memory, whatever protocol it is
// for and however long its messages say they are, and does not keep members from each other.
func TestHostileClusterConnections(t *testing.T) {
	c := newCluster(t, 3)
	m := c.leader(t)
	message := func(n int, text string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(n))) + text
	}
	open := `{"open":{"peerId":"x","secret":"y"}}`
	payloads := []string{
		message(1<<20, strings.Repeat("x", 1<<20)), message(1<<31, strings.Repeat("x", 64<<10)),
		message(4096, open[:20]+strings.Repeat("x", 4000)),
		message(len(open), open), strings.Repeat(message(16, `{"heartbeat":{}}`), 4000), "", strings.Repeat("\x00", 1<<20),
	}
	for _, proto := range []string{"muster-peer/1", "muster-peer-relay/1", "muster-raft/1", "muster-ask/1",
		"muster-calls/1", "h2", "http/1.1"} {
		a := &attacker{addr: m.raft}
		before := m.rss(t)
		crowd(len(payloads)*60, func(i int) {
			if c := a.dial(proto); c != nil {
				_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
				_, _ = io.WriteString(c, payloads[i%len(payloads)])
			}
		})
		if more := m.rss(t) - before; more > 60<<20 {
			t.Errorf("%s: the member has %d MB more", proto, more>>20)
		} else {
			t.Logf("%s: %d MB more", proto, more>>20)
		}
		c.admin(t).apiToken(t, m, "after-"+strings.NewReplacer("/", "-", ".", "-").Replace(proto), "cluster:read")
		a.end()
	}
}
