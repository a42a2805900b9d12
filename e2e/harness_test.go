package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"muster/cli"
)

// asMuster in the environment makes this binary a muster; its value marks the processes of one run of the tests.
const asMuster = "MUSTER_E2E_RUN"

var runID = fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())

func TestMain(m *testing.M) {
	if os.Getenv(asMuster) != "" { // what main.go does
		laterSchema(os.Getenv(asLater))
		shortLives(os.Getenv(asShortLived))
		cli.Version = cmp.Or(os.Getenv(asVersion), cli.Version)
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	code := m.Run()
	if lines, compared := undescribed(); len(lines) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: of %d requests and answers, these do not agree with handlers/openapi:\n%s\n", compared, strings.Join(lines, "\n"))
		code = 1
	}
	if left := ours(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: these processes of the tests were left running: %v\n", left)
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		code = 1
	}
	os.Exit(code)
}

// ours lists the processes that this run of the tests has started, directly or not.
func ours() (pids []int) {
	mark := []byte(asMuster + "=" + runID + "\x00")
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range files {
		if env, err := os.ReadFile(name); err == nil && bytes.Contains(env, mark) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// environment is that of the tests without what would configure a muster, and with the mark.
func environment(extra ...string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MUSTER_") {
			env = append(env, e)
		}
	}
	// The race detector would have each process sleep for a second before it ends.
	return append(append(env, asMuster+"="+runID, "GORACE=atexit_sleep_ms=0"), extra...)
}

// starter starts all processes from one thread that never ends: the kernel sends Pdeathsig when the thread that
// started a process ends, not when the program does.
var starter = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

// process is one muster.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// launch starts `muster args…` in a process group of its own. It does not outlive the tests, however they end.
func launch(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if cmd.Env == nil {
		cmd.Env = environment()
	}
	started := make(chan error)
	starter() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.ended) }()
	return p, nil
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends the process as a power cut would, and whatever is left of its group.
func (p *process) kill() {
	if p.running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	<-p.ended
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// exit waits for the process to end by itself and returns its exit status; an error when it takes longer.
func (p *process) exit(limit time.Duration) (int, error) {
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(limit):
		return 0, fmt.Errorf("the process has not ended within %v", limit)
	}
}

// outcome is what a command that ran to its end has said.
type outcome struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

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
	return outcome{code, stdout.String(), stderr.String(), time.Since(begin)}
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

func within(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ports lie below those that the kernel gives to outgoing connections: a member that was killed finds its own free. Each
// run of the tests has a range to itself, for as long as it holds the first port of it.
var ports = sync.OnceValue(func() *portRange {
	const first, size, ranges = 20000, 600, 20
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

// lastLines shortens a log for a report.
func lastLines(file string, n int) string {
	text, _ := os.ReadFile(file)
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(line string) bool {
		return strings.Contains(line, "level=DEBUG")
	})
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
