package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// binary measures the programs themselves: size, linkage, and start time (median of ten, files cached).
func (b *bench) binary(ctx context.Context) {
	size, started := outcome{}, outcome{}
	commands := map[string][]string{"muster": {b.musterPath, "version"}, "etcd": {b.etcdPath, "--version"}}
	for name, command := range commands {
		if command[0] == "" {
			continue
		}
		info, err := os.Stat(command[0])
		if err != nil {
			size[name] = &value{Error: err.Error()}
			continue
		}
		size.set(name, value{Value: float64(info.Size()) / 1e6})
		static, err := isStatic(command[0])
		b.report.note("binary: %s is static: %v%s", name, static, because(err))
		started.set(name, startTime(ctx, command))
	}
	b.add(ctx, "binary: size", "MB", true, size, below(25, "MB"))
	b.add(ctx, "binary: start to version", "ms", true, started, below(300, "ms"))
}

func startTime(ctx context.Context, command []string) value {
	var times []time.Duration
	for range 10 {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		t := time.Now()
		err := exec.CommandContext(ctx, command[0], command[1:]...).Run()
		times = append(times, time.Since(t))
		cancel()
		if err != nil {
			return value{Error: fmt.Sprintf("%v: %v", command, err)}
		}
	}
	v := value{}
	v.latencies(times)
	v.Value = v.P50
	return v
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf(" (%v)", err)
}

// isStatic reports whether the program needs neither a dynamic loader nor a shared library.
func isStatic(name string) (bool, error) {
	f, err := elf.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	libs, err := f.ImportedLibraries()
	return len(libs) == 0, err
}
