package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Profiles come from a muster built with -tags profile: it profiles itself continuously into the directory named by an
// environment variable, and on SIGUSR1 writes its profiles and starts again.

const profileVariable = "PROFILE_DIR"

// profileInto makes every started program profile itself, if it can.
func (f *fleet) profileInto(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	abs, err := filepath.Abs(dir)
	f.profiles = abs
	return err
}

// measuring starts the profiles of a part and discards earlier ones.
func (f *fleet) measuring(part string) {
	f.part = part
	f.cutProfiles("")
}

// cutProfiles names the profiles of the running programs; with an empty name it discards them.
func (f *fleet) cutProfiles(name string) {
	if f.profiles == "" {
		return
	}
	f.mu.Lock()
	all := f.all
	f.mu.Unlock()
	for _, p := range all {
		p.cutProfile(name)
	}
}

func (p *process) cutProfile(name string) {
	if p.fleet.profiles == "" || !p.profiled || p.gone() != nil {
		return
	}
	stem := filepath.Join(p.fleet.profiles, fmt.Sprint(p.cmd.Process.Pid))
	p.cmd.Process.Signal(syscall.SIGUSR1)
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(stem + ".mutex"); err == nil { // it is written last
			break
		}
	}
	member := strings.TrimSuffix(filepath.Base(p.log), ".log")
	for _, kind := range []string{"cpu", "heap", "mutex"} {
		if name == "" {
			os.Remove(stem + "." + kind)
		} else {
			os.Rename(stem+"."+kind, filepath.Join(p.fleet.profiles, fmt.Sprintf("%s-%s.%s.pprof", name, member, kind)))
		}
	}
}
