// Package processes runs musters as processes of the tests: each is the test's own binary, started again. None outlives
// the tests, however they end.
package processes

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"muster/cli"
)

// Mark in the environment makes a binary of tests a muster; its value tells the runs of tests apart.
const Mark = "MUSTER_E2E_RUN"

var runID = fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())

// Muster does what main.go does and ends the process, if it is to be a muster; before that it calls prepare. TestMain
// calls it first.
func Muster(prepare func()) {
	if os.Getenv(Mark) == "" {
		return
	}
	prepare()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit ends the tests with a code. It kills what they have left running, which is a failure.
func Exit(code int) {
	if left := Ours(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: these processes of the tests were left running: %v\n", left)
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		code = 1
	}
	os.Exit(code)
}

// Ours lists the processes that this run of the tests has started, directly or not.
func Ours() (pids []int) {
	mark := []byte(Mark + "=" + runID + "\x00")
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range files {
		if env, err := os.ReadFile(name); err == nil && bytes.Contains(env, mark) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// Environment is that of the tests without what would configure a muster, and with the mark.
func Environment(extra ...string) []string { return Marked(runID, extra...) }

// Marked is Environment with another value of the mark.
func Marked(run string, extra ...string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MUSTER_") {
			env = append(env, e)
		}
	}
	// The race detector would have each process sleep for a second before it ends.
	return append(append(env, Mark+"="+run, "GORACE=atexit_sleep_ms=0"), extra...)
}

// Self is the path of the tests' binary.
func Self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
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

// Process is a process of the tests.
type Process struct {
	Cmd   *exec.Cmd
	ended chan struct{}
}

// Start starts a command in a process group of its own. Without an environment it gets Environment's.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if cmd.Env == nil {
		cmd.Env = Environment()
	}
	started := make(chan error)
	starter() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p := &Process{Cmd: cmd, ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.ended) }()
	return p, nil
}

// StartLogged is Start with both outputs appended to a file.
func StartLogged(cmd *exec.Cmd, log string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	return Start(cmd)
}

// Signal sends a signal to the process, not to its group.
func (p *Process) Signal(s syscall.Signal) { _ = p.Cmd.Process.Signal(s) }

// Kill ends the process as a power cut would, and whatever is left of its group. It returns when the process has ended.
func (p *Process) Kill() {
	if p.Running() {
		_ = syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL)
	}
	<-p.ended
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Exit waits for the process to end by itself and returns its exit status; an error when it takes longer than limit.
func (p *Process) Exit(limit time.Duration) (int, error) {
	select {
	case <-p.ended:
		return p.Cmd.ProcessState.ExitCode(), nil
	case <-time.After(limit):
		return 0, fmt.Errorf("the process has not ended within %v", limit)
	}
}

// LastLines returns the last lines of a log, those of the level DEBUG aside.
func LastLines(file string, n int) string {
	text, _ := os.ReadFile(file)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "level=DEBUG") {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-n):], ""))
}
