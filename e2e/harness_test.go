package e2e

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"muster/cli"
	"muster/e2e/lost"
	"muster/e2e/processes"
	"muster/internal/await"
)

func TestMain(m *testing.M) {
	lost.Echo()
	processes.Muster(func() {
		laterSchema(os.Getenv(asLater))
		shortLives(os.Getenv(asShortLived))
		cli.Version = cmp.Or(os.Getenv(asVersion), cli.Version)
	})
	code := judged(m.Run)
	if lines, compared := recorded.Undescribed(); len(lines) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: of %d requests and answers, these do not agree with handlers/openapi:\n%s\n", compared,
			strings.Join(lines, "\n"))
		code = 1
	}
	processes.Exit(code)
}

// host is what the bounds of these tests are stretched by: other tests, and whatever else runs here, hold members up.
var host *lost.Meter

// judged runs the tests while the machine is measured, and returns their exit status.
func judged(run func() int) int {
	dir, err := os.MkdirTemp("", "muster-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if host, err = lost.Observe(dir, func() []int { return nil }); err != nil {
		panic(err)
	}
	code := run()
	if err := host.Close(); err != nil {
		panic(err)
	}
	return code
}

// late reports whether something that took so long exceeded a bound, what the machine has lost meanwhile not counted.
func late(begin time.Time, took, limit time.Duration) bool {
	return took > limit && took-host.Lost(begin, begin.Add(took)) > limit
}

// process is one muster.
type process struct {
	*processes.Process
	cmd *exec.Cmd
}

// launch starts `muster args…`.
func launch(cmd *exec.Cmd) (*process, error) {
	p, err := processes.Start(cmd)
	if err != nil {
		return nil, err
	}
	return &process{p, cmd}, nil
}

func self() string                         { return processes.Self() }
func environment(extra ...string) []string { return processes.Environment(extra...) }
func ours() []int                          { return processes.Ours() }
func lastLines(file string, n int) string  { return processes.LastLines(file, n) }
func (p *process) signal(s syscall.Signal) { p.Signal(s) }
func (p *process) kill()                   { p.Kill() }
func (p *process) running() bool           { return p.Running() }

// exit waits for the process to end by itself; an error when it takes longer than limit, what the machine has lost not
// counted.
func (p *process) exit(limit time.Duration) (int, error) {
	for begin, more := time.Now(), limit; ; {
		code, err := p.Exit(more)
		now := time.Now()
		if more = limit + host.Lost(begin, now) - now.Sub(begin); err == nil || more <= 0 {
			return code, err
		}
	}
}

// outcome is what a command that ran to its end has said.
type outcome struct {
	code           int
	stdout, stderr string
	begin          time.Time
	took           time.Duration
}

func (o outcome) late(limit time.Duration) bool { return late(o.begin, o.took, limit) }

// command is one call of the command line; zero fields are left out.
type command struct {
	env   []string
	stdin string
	dir   string
	wrap  []string // a program that runs the command, with its arguments
	limit time.Duration
}

// run runs `muster args…` to its end.
func (c command) run(t *testing.T, args ...string) outcome {
	t.Helper()
	line := append(append(c.wrap, self()), args...)
	cmd := exec.Command(line[0], line[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin, cmd.Dir = &stdout, &stderr, strings.NewReader(c.stdin), c.dir
	cmd.Env = environment(c.env...)
	begin := time.Now()
	p, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if c.limit == 0 {
		c.limit = 40 * time.Second
	}
	code, err := p.exit(c.limit)
	if err != nil {
		p.kill()
		t.Errorf("muster %s: %v", strings.Join(args, " "), err)
		code = -1
	}
	return outcome{code, stdout.String(), stderr.String(), begin, time.Since(begin)}
}

func muster(t *testing.T, args ...string) outcome {
	t.Helper()
	return command{}.run(t, args...)
}

// eventually repeats try until it succeeds; the test ends when it has not within the limit.
func eventually(t *testing.T, limit time.Duration, what string, try func() error) {
	t.Helper()
	if err := within(limit, try); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
}

// within repeats try until it succeeds or the time is up, what the machine has lost not counted; it returns the last
// error.
func within(limit time.Duration, try func() error) error { return stretched(await.Within, limit, try) }

// stretched is a poll whose limit does not count what the machine has lost.
func stretched(poll func(time.Duration, func() error) error, limit time.Duration, try func() error) error {
	for begin, more := time.Now(), limit; ; {
		err := poll(more, try)
		now := time.Now()
		if more = limit + host.Lost(begin, now) - now.Sub(begin); err == nil || more <= 0 {
			return err
		}
	}
}

// ports lie below those that the kernel gives to outgoing connections: a member that was killed finds its own free.
// Each run of the tests has a range to itself, for as long as it holds the first port of it.
var ports = sync.OnceValue(func() *portRange {
	const first, size, ranges = 20000, 1200, 10
	for i := range ranges {
		base := first + (os.Getpid()+i)%ranges*size
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base)); err == nil {
			return &portRange{hold: l, next: base + 1, end: base + size}
		}
	}
	panic("no free range of ports")
})

type portRange struct {
	hold      net.Listener
	mu        sync.Mutex
	next, end int
}

// freePorts finds n ports in a row that nobody listens on.
func freePorts(n int) int {
	p := ports()
	p.mu.Lock()
	defer p.mu.Unlock()
	for found := 0; p.next < p.end; {
		p.next++
		if l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", p.next-1)); err != nil {
			found = 0
		} else if l.Close(); found+1 == n {
			return p.next - n
		} else {
			found++
		}
	}
	panic("no free port is left")
}

func freePort() int { return freePorts(1) }

// sources gives each group of tests an address of its own, as failed attempts are counted by address.
var sources atomic.Int64

func source() net.IP {
	n := sources.Add(1)
	return net.IPv4(127, 1, byte(n>>8), byte(n))
}

// checkLog fails the test for what a member must never have to say.
func checkLog(t *testing.T, name, file string) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "level=ERROR", "goroutine 1 ["} {
		if i := bytes.Index(text, []byte(bad)); i >= 0 {
			t.Errorf("%s says %q in its log:\n%s", name, bad, text[max(0, i-200):min(len(text), i+4000)])
		}
	}
}
