// Package devdir manages the directory of a "muster dev": one process holds it at a time, and its cluster keeps its
// ports.
package devdir

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The ports of the first member of the first cluster on a machine.
const (
	APIPort  = 5000
	RaftPort = 7000
)

const clusters = 20 // bound of the search for free ports: clusters of "muster dev" on one machine

// Lock locks the directory of a "muster dev" for this process, until the file is closed. It does not block: it fails
// when another process holds the directory, or when one of its members runs already.
func Lock(data string, nodes int) (*os.File, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("%s cannot be made: %w", data, err)
	}
	f, err := os.Open(data)
	if err != nil {
		return nil, err
	}
	if !flock(f) {
		f.Close()
		return nil, fmt.Errorf("another muster dev runs the cluster in %s", data)
	}
	for n := 1; n <= nodes; n++ {
		dir := filepath.Join(data, fmt.Sprint(n))
		if inUse(filepath.Join(dir, "lock")) {
			f.Close()
			return nil, fmt.Errorf("member %d of the cluster in %s runs already: stop it first, or give another --data",
				n, data)
		}
	}
	return f, nil
}

// Removed reports whether a member was removed from its cluster; dir is its data directory. It never starts again.
func Removed(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "removed.json"))
	return err == nil
}

// Present lists the numbers of those of n members that were not removed.
func Present(data string, nodes int) (list []int) {
	for n := 1; n <= nodes; n++ {
		if !Removed(filepath.Join(data, strconv.Itoa(n))) {
			list = append(list, n)
		}
	}
	return list
}

// LastWords returns the last line of a member's log.
func LastWords(log string) string {
	f, err := os.Open(log)
	if err != nil {
		return "it left no log"
	}
	defer f.Close()
	last := ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if line := strings.TrimSpace(sc.Text()); line != "" {
			last = line
		}
	}
	return strings.TrimPrefix(last, "muster: ")
}

// inUse reports whether a process holds the lock file of a member.
func inUse(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	return !flock(f)
}

func flock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// Ports returns the default ports of a cluster: its former ones, or the first free ones. dir is the directory of its
// first member.
func Ports(dir string, nodes int) (api, raft int, err error) {
	if api, raft, err = kept(dir); err != nil || api != 0 {
		return api, raft, err
	}
	step := (nodes + 9) / 10 * 10
	for i := range clusters {
		api, raft = APIPort+i*step, RaftPort+i*step
		if free(api, nodes) && free(raft, nodes) {
			return api, raft, nil
		}
	}
	return 0, 0, fmt.Errorf(
		"no ports for %d members are free from %d and %d on: give ports with --api-port and --raft-port",
		nodes, APIPort, RaftPort)
}

// kept returns the former ports of a member, or 0.
func kept(dir string) (api, raft int, err error) {
	name := filepath.Join(dir, "node.json")
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	var was struct{ APIAddress, RaftAddress string }
	if err := json.Unmarshal(text, &was); err != nil {
		return 0, 0, fmt.Errorf("%s is not valid: %w", name, err)
	}
	for _, p := range []struct {
		address string
		port    *int
	}{{was.APIAddress, &api}, {was.RaftAddress, &raft}} {
		_, port, err := net.SplitHostPort(p.address)
		if err == nil {
			*p.port, err = strconv.Atoi(port)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("%s has no address of the form HOST:PORT: %q", name, p.address)
		}
	}
	return api, raft, nil
}

// free reports whether n consecutive ports from first are free.
func free(first, n int) bool {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
