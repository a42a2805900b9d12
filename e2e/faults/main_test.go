package faults

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"muster/e2e/lost"
	"muster/e2e/processes"
)

func TestMain(m *testing.M) {
	lost.Echo()
	processes.Muster(func() {})
	processes.Exit(m.Run())
}

// process is one muster.
type process struct {
	*processes.Process
	cmd *exec.Cmd
}

// launch starts a muster with its output in a file.
func launch(log string, args ...string) (*process, error) {
	binary := os.Getenv("BINARY")
	if binary == "" {
		binary = processes.Self()
	}
	cmd := exec.Command(binary, args...)
	p, err := processes.StartLogged(cmd, log)
	if err != nil {
		return nil, err
	}
	return &process{p, cmd}, nil
}

func (p *process) pid() int                { return p.cmd.Process.Pid }
func (p *process) signal(s syscall.Signal) { p.Signal(s) }
func (p *process) kill()                   { p.Kill() }
func (p *process) running() bool           { return p.Running() }

func (p *process) hasEnded() error {
	if p.Running() {
		return errors.New("it runs")
	}
	return nil
}

func lastLines(file string, n int) string { return processes.LastLines(file, n) }
