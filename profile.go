//go:build profile

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
)

// With this build tag muster profiles itself: on SIGUSR1 it writes PID.cpu, PID.heap and PID.mutex into PROFILE_DIR and
// starts a new profile. It is for the benchmark.
func init() {
	dir := os.Getenv("PROFILE_DIR")
	if dir == "" {
		return
	}
	runtime.SetMutexProfileFraction(10)
	stem := filepath.Join(dir, fmt.Sprint(os.Getpid()))
	begin := func() *os.File {
		f, err := os.Create(stem + ".running")
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "profile:", err)
		}
		return f
	}
	cpu := begin()
	cut := make(chan os.Signal, 1)
	signal.Notify(cut, syscall.SIGUSR1)
	go func() {
		for range cut {
			pprof.StopCPUProfile()
			cpu.Close()
			os.Rename(stem+".running", stem+".cpu")
			for _, kind := range []string{"heap", "mutex"} {
				if f, err := os.Create(stem + ".new"); err == nil {
					pprof.Lookup(kind).WriteTo(f, 0)
					f.Close()
					os.Rename(stem+".new", stem+"."+kind)
				}
			}
			cpu = begin()
		}
	}()
}
