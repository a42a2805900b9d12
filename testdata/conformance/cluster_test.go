// Package conformance drives a real cluster, the built binary, with the official clients of the families it speaks.
// It is a module of its own, so that those clients are no dependency of muster.
package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cluster is a `muster dev` with its data directory.
type cluster struct {
	t     *testing.T
	dir   string
	addrs []string // HTTPS addresses of the members
	token string
	ca    string // file
	http  *http.Client
}

// binary is the muster that `make build` has left; the tests do not build it.
func binary(t *testing.T) string {
	path, err := filepath.Abs("../../muster")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal("there is no ./muster: run make build first")
	}
	return path
}

// Ports lie below those that the kernel gives to outgoing connections, and below those of the other tests. Each run has
// some to itself.
const (
	firstPort  = 18_000
	portsOfRun = 100
)

var (
	portsMu  sync.Mutex
	nextPort = firstPort + os.Getpid()%20*portsOfRun
)

// ports finds n ports in a row that nobody listens on, others for each call.
func ports(t *testing.T, n int) int {
	t.Helper()
	portsMu.Lock()
	defer portsMu.Unlock()
	for found, tried := 0, 0; tried < portsOfRun; tried++ {
		nextPort++
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort-1))
		if err != nil {
			found = 0
			continue
		}
		l.Close()
		if found++; found == n {
			return nextPort - n
		}
	}
	t.Fatal("no free ports in a row")
	return 0
}

func start(t *testing.T, members int) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	base := ports(t, 2*members)
	cmd := exec.Command(binary(t), "dev", "--nodes", fmt.Sprint(members), "--data", c.dir, "--api-port", fmt.Sprint(base),
		"--raft-port", fmt.Sprint(base+members))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(t.TempDir(), "dev.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(15 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
		if data, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("muster dev said:\n%s", data)
		}
	})
	for i := range members {
		c.addrs = append(c.addrs, fmt.Sprintf("https://127.0.0.1:%d", base+i))
	}
	c.ca = filepath.Join(c.dir, "1", "ca.crt")
	c.eventually("the cluster forms", func() error {
		data, err := os.ReadFile(log.Name())
		if err == nil && !strings.Contains(string(data), "members are ready") {
			err = fmt.Errorf("it says: %s", data)
		}
		return err
	})
	token, err := os.ReadFile(filepath.Join(c.dir, "1", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	c.token = strings.TrimSpace(string(token))
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
		Timeout: 15 * time.Second}
	return c
}

func (c *cluster) eventually(what string, f func() error) {
	c.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// result asks an endpoint of the members family.
func (c *cluster) result(method, path, body string, out any) int {
	c.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, c.addrs[len(c.addrs)-1]+path,
		strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	var e struct{ Result json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		c.t.Fatal(err)
	}
	if out != nil {
		if err := json.Unmarshal(e.Result, out); err != nil {
			c.t.Fatal(err)
		}
	}
	return resp.StatusCode
}

// raw asks an endpoint of another family and forgets the answer.
func (c *cluster) raw(method, path string) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, c.addrs[len(c.addrs)-1]+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("X-Nomad-Token", c.token)
	if resp, err := c.http.Do(r); err == nil {
		resp.Body.Close()
	}
}
