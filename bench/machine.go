package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// describe records the measured programs and the machine.
func (b *bench) describe(ctx context.Context) {
	m := b.report.Machine
	m["muster"] = firstLine(ctx, b.musterPath, "version")
	m["etcd"] = firstLine(ctx, b.etcdPath, "--version")
	m["machine"] = fmt.Sprintf("%d cores (%s), %s/%s, %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"),
		runtime.GOOS, runtime.GOARCH, runtime.Version())
	m["disk"] = syncTime(b.fleet.dir)
	load, _ := os.ReadFile("/proc/loadavg")
	m["load"] = strings.TrimSpace(string(load)) + " before the start"
}

func firstLine(ctx context.Context, command ...string) string {
	if command[0] == "" {
		return "not found"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil {
		return fmt.Sprintf("%s (%v)", line, err)
	}
	return line
}

// field returns the value of a line "name : value" in a file of /proc.
func field(file, name string) string {
	text, _ := os.ReadFile(file)
	_, rest, _ := strings.Cut(string(text), name)
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimLeft(line, " \t:")
}

// syncTime measures a durable append of 4 KiB in the directory of the clusters' data.
func syncTime(dir string) string {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return err.Error()
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var times []time.Duration
	for range 200 {
		begin := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return err.Error()
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return err.Error()
		}
		times = append(times, time.Since(begin))
	}
	s := sorted(times)
	return fmt.Sprintf("append and fdatasync of 4 KiB in %s: p50 %.2f, p99 %.2f ms", os.TempDir(),
		milliseconds(quantile(s, 0.5)), milliseconds(quantile(s, 0.99)))
}
