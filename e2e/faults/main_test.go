package faults

import (
	"bytes"
	"context"
	"errors"
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
	"testing"
	"time"

	"muster/cli"
)

// asMuster in the environment makes this binary a muster; its value marks the processes of one run.
const asMuster = "MUSTER_FAULTS_RUN"

var runID = fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())

func TestMain(m *testing.M) {
	if os.Getenv(asEcho) != "" {
		echo()
		return
	}
	if os.Getenv(asMuster) != "" { // what main.go does
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	code := m.Run()
	if left := ours(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: these processes of the campaign were left running: %v\n", left)
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		code = 1
	}
	os.Exit(code)
}

// ours lists the processes that this run has started.
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
func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MUSTER_") {
			env = append(env, e)
		}
	}
	return append(env, asMuster+"="+runID, "GORACE=atexit_sleep_ms=0")
}

// starter starts all processes from one thread that never ends: Pdeathsig is sent when the thread that started a process
// ends, not when the program does.
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

// launch starts a muster with its output in a file. It does not outlive the tests, however they end.
func launch(log string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	binary := os.Getenv("BINARY")
	if binary == "" {
		if binary, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	starter() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.ended) }()
	return p, nil
}

func (p *process) pid() int                { return p.cmd.Process.Pid }
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends the process as a power cut would.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
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

func (p *process) hasEnded() error {
	if p.running() {
		return errors.New("it runs")
	}
	return nil
}
