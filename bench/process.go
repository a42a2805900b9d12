package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fleet owns the temporary directory and every process that was started, so that none outlives the benchmark.
type fleet struct {
	dir     string
	mu      sync.Mutex
	all     []*process
	closed  bool
	starter chan func() // see newFleet

	profiles string // directory, empty for none
	part     string // that is being measured
}

func newFleet() (*fleet, error) {
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return nil, err
	}
	f := &fleet{dir: dir, starter: make(chan func())}
	// The kernel sends Pdeathsig when the *thread* that started a process ends: so one thread that never ends starts all.
	go func() {
		runtime.LockOSThread()
		for start := range f.starter {
			start()
		}
	}()
	return f, nil
}

// close kills what still runs and removes the temporary directory.
func (f *fleet) close(keep bool) {
	f.mu.Lock()
	f.closed = true
	all := f.all
	f.mu.Unlock()
	for _, p := range all {
		p.kill()
	}
	if keep {
		fmt.Fprintln(os.Stderr, "bench: data and logs are in", f.dir)
		return
	}
	os.RemoveAll(f.dir)
}

// process is one program that can be killed and started again with the same command.
type process struct {
	fleet *fleet
	args  []string
	log   string // file name: what it says
	// profiled: it is a muster, which may profile itself
	profiled bool
	cmd      *exec.Cmd
	ended    chan struct{}
}

// launch starts a program whose output goes to dir/<name>.log.
func (f *fleet) launch(dir, name string, args ...string) (*process, error) {
	p := &process{fleet: f, args: args, log: filepath.Join(dir, name+".log"), profiled: len(args) > 1 &&
		args[1] == "serve"}
	if err := p.start(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.all = append(f.all, p)
	f.mu.Unlock()
	return p, nil
}

func (p *process) start() error {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	if p.fleet.closed {
		return errors.New("the benchmark is ending")
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, environment()
	if p.profiled && p.fleet.profiles != "" {
		cmd.Env = append(cmd.Env, profileVariable+"="+p.fleet.profiles)
	}
	// Its own process group: Ctrl-C reaches the benchmark alone, which then stops the rest in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	p.fleet.starter <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	p.cmd, p.ended = cmd, ended
	return nil
}

// environment is ours without what would configure the programs behind our back.
func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MUSTER_") && !strings.HasPrefix(e, "ETCD_") {
			env = append(env, e)
		}
	}
	return env
}

// kill ends the process with SIGKILL and waits until it is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// terminate asks the process to end, and kills it when it takes too long.
func (p *process) terminate(patience time.Duration) {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.kill()
	}
}

// gone says why a process that should be running is not.
func (p *process) gone() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended (%v); its last words: %s", filepath.Base(p.args[0]), p.cmd.ProcessState, lastWords(p.log))
	default:
		return nil
	}
}

func lastWords(name string) string {
	text, _ := os.ReadFile(name)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// cpu is the processor time of the process in nanoseconds, as the scheduler counts it for each thread. It lacks the
// threads that have ended: Go's runtime, libuv and dqlite keep theirs.
func (p *process) cpu() (sum time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	for _, name := range threads {
		text, _ := os.ReadFile(name)
		ran, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(ran, 10, 64)
		sum += time.Duration(n)
	}
	return sum
}

// rss is the resident memory in bytes.
func (p *process) rss() float64 { return p.status("VmRSS") }

// status is a size from the kernel's account of the process, in bytes.
func (p *process) status(name string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(text), name+":")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.ParseFloat(fields[0], 64)
	return kb * 1024
}

func totalCPU(processes []*process) (sum time.Duration) {
	for _, p := range processes {
		sum += p.cpu()
	}
	return sum
}

// freeAddrs finds n loopback addresses that nobody listens on.
func freeAddrs(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // only at the end, so that all differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// eventually repeats try until it succeeds, for at most limit, and says what was wrong last.
func eventually(outer context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(outer, limit)
	defer cancel()
	for {
		once, stop := context.WithTimeout(ctx, 2*time.Second)
		err := try(once)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-outer.Done():
			return context.Cause(outer)
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
