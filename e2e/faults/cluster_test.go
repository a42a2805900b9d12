package faults

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"muster/e2e/lost"
)

// patience bounds what takes a moment on an idle machine.
const patience = 60 * time.Second

// member is one machine in a place of the cluster. Its place keeps its links; a machine that replaces it is another
// member.
type member struct {
	place     int
	name      string
	dir, log  string
	api, raft string // where it listens
	via       string // what others are told: the API behind a relay
	args      []string
	disk      string // the image of the small file system that its data directory is; empty when it has none

	mu        sync.Mutex
	process   *process
	frozen    bool
	stuck     bool         // its disk is frozen
	wanted    bool         // it is to be running: an end is its own doing
	serves    bool         // it has answered since it was started: until then it holds connections, and promises nothing
	disturbed atomic.Int64 // raised whenever something is done to the process
	id        atomic.Uint64
}

// campaign is one run.
type campaign struct {
	t     *testing.T
	plan  plan
	root  string
	octet int
	token string
	net   *network
	host  *lost.Meter
	rec   *recorder
	begin time.Time

	mu      sync.Mutex
	places  []*member
	past    []*member // that were removed
	born    int       // members that there have been
	stops   []func()
	disks   bool
	wrong   []string
	figures map[string][]time.Duration // longest time without an acknowledged write, by fault
}

// violate notes what must not be.
func (c *campaign) violate(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf("%8.3f ", time.Since(c.begin).Seconds()) + fmt.Sprintf(format, args...)
	if len(c.wrong) < 50 {
		c.wrong = append(c.wrong, text)
		c.t.Error(text)
	}
}

func (c *campaign) note(format string, args ...any) {
	c.t.Logf("%8.3f %s", time.Since(c.begin).Seconds(), fmt.Sprintf(format, args...))
}

// member is who is at a place now.
func (c *campaign) member(place int) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.places[place]
}

func (c *campaign) members() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*member(nil), c.places...)
}

func (c *campaign) pids() (pids []int) {
	for _, m := range c.members() {
		if p := m.current(); p != nil && p.running() {
			pids = append(pids, p.pid())
		}
	}
	return pids
}

func (c *campaign) owner(pid int) (int, bool) {
	for _, m := range c.members() {
		if p := m.current(); p != nil && p.pid() == pid {
			return m.place, true
		}
	}
	return 0, false
}

// loopback finds a second octet that no other campaign on this machine uses: its members listen on 127.x.1.n, and what
// they are told of each other are the relays' addresses 127.x.2.n.
func loopback(t *testing.T) int {
	for i := range 100 {
		octet := 100 + (os.Getpid()+i)%100
		if l, err := net.Listen("tcp", fmt.Sprintf("127.%d.0.1:7000", octet)); err == nil {
			t.Cleanup(func() { l.Close() })
			return octet
		}
	}
	t.Fatal("no free addresses for a campaign")
	return 0
}

// newMember makes a member that has not been started.
func (c *campaign) newMember(place int) *member {
	c.mu.Lock()
	c.born++
	n := c.born
	c.mu.Unlock()
	name := fmt.Sprintf("m%d", n)
	m := &member{
		place: place,
		name:  name,
		dir:   filepath.Join(c.root, name),
		log:   filepath.Join(c.root, name+".log"),
		api:   fmt.Sprintf("127.%d.1.%d:5000", c.octet, n),
		raft:  fmt.Sprintf("127.%d.1.%d:7000", c.octet, n),
	}
	via := fmt.Sprintf("127.%d.2.%d", c.octet, n)
	m.via = via + ":5000"
	m.args = []string{"serve", "--data", m.dir, "--name", name, "--api", m.api, "--raft", m.raft, "--advertise", via}
	stop, err := c.net.relay(place, via+":7000", m.raft)
	if err != nil {
		c.t.Fatal(err)
	}
	front, err := forward(via+":5000", m.api)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.stops = append(c.stops, stop, front)
	c.mu.Unlock()
	if c.disks {
		c.ownDisk(m)
	}
	return m
}

func (m *member) current() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process
}

// answers reports whether the member runs and is not frozen.
func (m *member) answers() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process != nil && m.process.running() && !m.frozen && m.wanted && m.serves
}

func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil && m.process.running() {
		return nil
	}
	p, err := launch(m.log, m.args...)
	if err != nil {
		return err
	}
	m.process, m.frozen, m.wanted, m.serves = p, false, true, false
	m.disturbed.Add(1)
	go m.await(p)
	return nil
}

// await notes when a process that was started answers for the first time.
func (m *member) await(p *process) {
	for p.running() {
		if _, err := m.status(); err == nil {
			m.mu.Lock()
			if m.process == p {
				m.serves = true
			}
			m.mu.Unlock()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (m *member) kill() {
	m.freezeDisk(false) // a process that waits for its disk does not die
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disturbed.Add(1)
	m.wanted, m.frozen, m.serves = false, false, false
	if m.process != nil {
		m.process.kill()
	}
}

// terminate ends the member as systemd does; it returns what is wrong with how it ended.
func (m *member) terminate(host *lost.Meter) (fault string) {
	m.freezeDisk(false)
	m.mu.Lock()
	m.disturbed.Add(1)
	m.wanted = false
	p := m.process
	m.mu.Unlock()
	if p == nil || !p.running() {
		return ""
	}
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	if host.Within(5*time.Second+slack, p.hasEnded) != nil {
		p.signal(syscall.SIGQUIT) // its log gets what each goroutine waits for
		_ = host.Within(time.Second, p.hasEnded)
		p.kill()
		return fmt.Sprintf("%s has not ended within 5 s of SIGTERM", m.name)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Sprintf("%s ended with status %d after SIGTERM", m.name, code)
	}
	return ""
}

func (m *member) freeze(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disturbed.Add(1)
	if m.process == nil || !m.process.running() || m.frozen == on {
		return
	}
	m.frozen = on
	if on {
		m.process.signal(syscall.SIGSTOP)
	} else {
		m.process.signal(syscall.SIGCONT)
	}
}

// found starts the first member, lets the others join and waits until all vote.
func (c *campaign) found() {
	for place := range c.plan.members {
		m := c.newMember(place)
		c.mu.Lock()
		c.places = append(c.places, m)
		c.mu.Unlock()
		if place > 0 {
			token, err := c.joinToken(c.member(0))
			if err != nil {
				c.t.Fatal(err)
			}
			m.args = append(m.args, "--join", token)
		}
		if err := m.start(); err != nil {
			c.t.Fatal(err)
		}
		if err := c.host.Within(patience, m.ready); err != nil {
			c.t.Fatalf("%s: %v\n%s", m.name, err, lastLines(m.log, 20))
		}
		if place == 0 {
			data, err := os.ReadFile(filepath.Join(m.dir, "admin.token"))
			if err != nil {
				c.t.Fatal(err)
			}
			c.token = strings.TrimSpace(string(data))
		}
	}
	if err := c.host.Within(patience, c.whole); err != nil {
		c.t.Fatal(err)
	}
}

// ready reports whether the member's own status is that it is ready, and remembers its id.
func (m *member) ready() error {
	if p := m.current(); p == nil || !p.running() {
		return fmt.Errorf("it has ended")
	}
	st, err := m.status()
	switch {
	case err != nil:
		return err
	case !st.Ready || st.Cluster == nil:
		return fmt.Errorf("it is not ready: %s", st.Reason)
	}
	m.id.Store(st.Cluster.NodeID)
	return nil
}

// whole reports whether every member answers, and is seen by every other as a living voter under one leader.
func (c *campaign) whole() error {
	for _, m := range c.members() {
		if err := m.ready(); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		list, err := c.list(m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		voters, leaders := 0, 0
		for _, x := range list {
			if x.Suffrage == "voter" && x.Status == "alive" {
				voters++
			}
			if x.IsLeader {
				leaders++
			}
		}
		if voters != c.plan.members || leaders != 1 {
			return fmt.Errorf("%s sees %d living voters and %d leaders", m.name, voters, leaders)
		}
	}
	return nil
}

// leader is the place that leads by its own word; -1 when nobody does.
func (c *campaign) leader() int {
	for _, m := range c.members() {
		if m.answers() {
			if st, err := m.status(); err == nil && st.Cluster != nil && st.Cluster.IsLeader {
				return m.place
			}
		}
	}
	return -1
}

// mend starts whoever is down, thaws whoever is frozen and heals the network.
func (c *campaign) mend() {
	c.net.heal()
	for _, m := range c.members() {
		m.freeze(false)
		m.freezeDisk(false)
		c.emptyDisk(m)
		if err := m.start(); err != nil {
			c.violate("%s does not start: %v", m.name, err)
		}
	}
}

// checkProcesses starts members again that have ended by themselves, which none may.
func (c *campaign) checkProcesses() {
	for _, m := range c.members() {
		m.mu.Lock()
		own := m.wanted && m.process != nil && !m.process.running()
		m.mu.Unlock()
		if own {
			c.violate("%s has ended by itself (%v):\n%s", m.name, m.process.cmd.ProcessState, lastLines(m.log, 30))
			_ = m.start()
		}
	}
}

// end stops all members and looks for what none may say.
func (c *campaign) end() {
	all := append(c.members(), c.past...)
	for _, m := range all {
		m.freezeDisk(false)
		if p := m.current(); p != nil && p.running() {
			m.freeze(false)
			p.signal(syscall.SIGTERM)
		}
	}
	for _, m := range all {
		if p := m.current(); p != nil && c.host.Within(10*time.Second, p.hasEnded) != nil {
			p.kill()
			c.violate("%s has not ended within 10 s of SIGTERM", m.name)
		}
		data, _ := os.ReadFile(m.log)
		text := strings.ReplaceAll(string(data), "level=ERROR msg=\"this node has been removed", "") // which it is to say
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "goroutine 1 [", "AddressSanitizer", "Assertion",
			"level=ERROR"} {
			if i := strings.Index(text, bad); i >= 0 {
				c.violate("%s says %q in its log:\n%s", m.name, bad, text[max(0, i-200):min(len(text), i+2000)])
			}
		}
	}
	for _, stop := range c.stops {
		stop()
	}
}
