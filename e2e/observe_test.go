package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster/client"
)

// TestObserve: what happens in a cluster can be followed, looked up and counted, whoever leads.
func TestObserve(t *testing.T) {
	t.Parallel()
	c := clusterWith(t, 3, func(int) []string { return []string{"--event-window", "256"} })
	c.awaitVoters(t)
	t.Run("events while leaders die", func(t *testing.T) { testEventsThroughKills(t, c) })

	// Somebody is away while the rest goes on: that is noted, and the return as well.
	away := c.others(c.leader(t))[0]
	before := c.revision(t)
	quiet := c.admin(t).stream(t, c.leader(t), "?type=setting", "", 0)
	away.kill()
	t.Run("audit", func(t *testing.T) { testAudit(t, c) })
	t.Run("refused attempts", func(t *testing.T) { testRefusals(t, c) })
	c.awaitEvent(t, before, "member.unhealthy", away.n)
	away.start(t)
	away.awaitReady(t)
	c.awaitVoters(t)
	t.Run("a slow reader", func(t *testing.T) { testSlowReader(t, c) })
	t.Run("metrics", func(t *testing.T) { testMetrics(t, c) })
	c.awaitEvent(t, before, "member.healthy", away.n)

	// A stream in which nothing has come for all that time is still there.
	c.admin(t).do(c.leader(t), "PUT", "/api/v1/cluster/autopilot/config", `{"maxLagRevisions":9999}`).is(t, "a setting",
		200, "")
	if f, ok := quiet.next(); !ok || f.event != "setting" {
		t.Errorf("the quiet stream has ended: %+v", f)
	}
}

// revision is the newest that the leader knows.
func (c *cluster) revision(t *testing.T) uint64 {
	t.Helper()
	return c.leader(t).status(t).Revision
}

// awaitEvent waits until the audit has an entry of a member.
func (c *cluster) awaitEvent(t *testing.T, after uint64, action string, node int) {
	t.Helper()
	u := c.admin(t)
	eventually(t, formed, fmt.Sprintf("%s of node %d is noted", action, node), func() error {
		page, err := try[client.AuditPage](u, c.leader(t), "GET",
			fmt.Sprintf("/api/v1/audit?after=%d&action=%s&object=node/%d", after, action, node), "")
		if err == nil && len(page.Entries) != 1 {
			err = fmt.Errorf("%d entries", len(page.Entries))
		}
		return err
	})
}

// story is what a reader has been told, in order.
type story struct {
	mu   sync.Mutex
	told []string
}

func tell(e client.Event) string {
	return fmt.Sprintf("%d|%d|%s|%s|%s|%s|%d|%s", e.Revision, e.Seq, e.At.UTC().Format(time.RFC3339), e.Action, e.Object,
		e.Actor, e.NodeID, e.Detail)
}

const tellSQL = "SELECT revision, seq, at, action, object, actor, node_id, detail FROM audit WHERE revision > %d " +
	"ORDER BY revision, seq"

func (s *story) add(e client.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, tell(e))
	return nil
}

func (s *story) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.told)
}

// watcher makes a client that asks the members in an order of its own.
func (c *cluster) watcher(t *testing.T, first int) *client.Client {
	t.Helper()
	var addrs []string
	for i := range c.members {
		addrs = append(addrs, c.members[(first+i)%len(c.members)].api)
	}
	w, err := client.New(client.Config{Addrs: addrs, Token: c.token, CACertFile: c.members[0].file("ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// testEventsThroughKills: readers of every member, and `muster watch`, are told exactly what the audit table holds, in
// its order, while leaders are killed under them.
func testEventsThroughKills(t *testing.T, c *cluster) {
	start := c.revision(t)
	ctx, cancel := context.WithCancel(context.Background())
	stories := make([]*story, len(c.members))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	for i := range c.members {
		stories[i] = &story{}
		w := c.watcher(t, i)
		watching.Go(func() {
			if err := w.Watch(ctx, client.WatchOptions{After: fmt.Sprint(start)}, stories[i].add); !errors.Is(err,
				context.Canceled) {
				t.Errorf("watch from node %d: %v", i+1, err)
			}
		})
	}
	cmd := exec.Command(self(), "watch", "--since", fmt.Sprint(start), "-o", "json")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &said, environment(c.env(c.token)...)
	command, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer command.kill()

	ledger := newLedger(100_000)
	users := make([]*user, len(c.members))
	for i := range users {
		users[i] = c.admin(t)
	}
	var workers []func()
	for i, m := range c.members {
		workers = append(workers, run(2, func() {
			if !ledger.mint(users[i], m) {
				time.Sleep(5 * time.Millisecond)
			}
		}))
	}
	for range 4 {
		ledger.awaitMore(t, 60)
		killed := c.leader(t)
		killed.kill()
		ledger.awaitMore(t, 30)
		killed.start(t)
		killed.awaitReady(t)
		c.awaitVoters(t)
	}
	for _, stop := range workers {
		stop()
	}

	want := agreedAudit(t, c, start)
	for i, s := range stories {
		compareStory(t, fmt.Sprintf("the reader that began at node %d", i+1), want, s.lines)
	}
	time.Sleep(100 * time.Millisecond) // whatever would be told twice
	command.signal(syscall.SIGINT)
	if code, err := command.exit(5 * time.Second); err != nil || code != 0 {
		t.Errorf("muster watch, interrupted: %v, exit status %d: %s", err, code, said.String())
	}
	var printed []string
	for line := range strings.Lines(out.String()) {
		var e client.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("muster watch -o json: %v: %s", err, line)
		}
		printed = append(printed, tell(e))
	}
	compareStory(t, "muster watch", want, func() []string { return printed })
	leaders := strings.Count(strings.Join(want, "\n"), "|leader.elected|")
	if leaders < 4 {
		t.Errorf("%d changes of leader are in the story of 4 kills", leaders)
	}
	t.Logf("%d events, %d changes of leader", len(want), leaders)
}

// agreedAudit reads the audit table in the mirrors, once it stands still and all mirrors agree.
func agreedAudit(t *testing.T, c *cluster, start uint64) (want []string) {
	t.Helper()
	eventually(t, formed, "all mirrors hold the same audit", func() error {
		text := sqlite(t, c.members[0].db(), fmt.Sprintf(tellSQL, start))
		for _, m := range c.members[1:] {
			if other := sqlite(t, m.db(), fmt.Sprintf(tellSQL, start)); other != text {
				return fmt.Errorf("%d and %d bytes", len(text), len(other))
			}
		}
		want = strings.Split(text, "\n")
		if rev := c.revision(t); !strings.HasPrefix(want[len(want)-1], fmt.Sprintf("%d|", rev)) {
			return fmt.Errorf("the cluster is at revision %d, the mirrors at %s", rev, want[len(want)-1])
		}
		return nil
	})
	return want
}

// compareStory compares what a reader was told with the audit.
func compareStory(t *testing.T, who string, want []string, got func() []string) {
	t.Helper()
	var last []string
	if err := within(10*time.Second, func() error {
		if last = got(); len(last) < len(want) {
			return fmt.Errorf("%d of %d events", len(last), len(want))
		}
		return nil
	}); err != nil {
		t.Errorf("%s: %v", who, err)
	}
	for i := range min(len(last), len(want)) {
		if last[i] != want[i] {
			t.Errorf("%s: event %d is %s, the audit has %s", who, i, last[i], want[i])
			return
		}
	}
	if len(last) > len(want) {
		t.Errorf("%s: %d events too many, such as %s", who, len(last)-len(want), last[len(want)])
	}
}

// frame is one server-sent event.
type frame struct{ id, event, data string }

// streamed is an open stream.
type streamed struct {
	*http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// stream opens a stream; the answer may be a refusal. window bounds what may be under way to a reader that does not
// read.
func (u *user) stream(t *testing.T, m *member, query, after string, window int) *streamed {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+m.api+"/api/v1/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(u.cluster.members[0].read(t, "ca.crt"))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: u.from}}).DialContext}
	if window > 0 {
		transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: window}
	}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &streamed{resp, bufio.NewScanner(resp.Body), cancel}
}

// next reads up to the next event; heartbeats and mere ids are left out, but the last id is kept.
func (s *streamed) next() (f frame, ok bool) {
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "id":
			f.id = value
		case "event":
			f.event = value
		case "data":
			f.data = value
		case "":
			if f.data != "" {
				return f, true
			}
			f = frame{id: f.id}
		}
	}
	return f, false
}
