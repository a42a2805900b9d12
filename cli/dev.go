package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/devdir"
	"muster/client"
	"muster/store"
)

const (
	devLog       = "muster.log" // in each member's data directory
	devReady     = 30 * time.Second
	devStopLimit = 8 * time.Second
	maxDevNodes  = 32
)

func newDevCommand(env *environment) *cobra.Command {
	d := devCluster{env: env}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a real cluster of several processes on this machine",
		Long: `Run a cluster of several members on this machine, each a process with its own data directory, joined by real
tokens. Ctrl-C stops them all; the next start resumes the same cluster.

A second cluster, in another --data, uses the next free ports, unless --api-port and --raft-port are given.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.nodes < 1 || d.nodes > maxDevNodes {
				return usagef(cmd, "--nodes must be between 1 and %d", maxDevNodes)
			}
			for _, zone := range d.zones {
				if err := store.CheckZone(zone); err != nil {
					return usagef(cmd, "--zones: %s", err)
				}
			}
			d.fixed = cmd.Flags().Changed("api-port") || cmd.Flags().Changed("raft-port")
			return d.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&d.nodes, "nodes", 3, "number of members")
	flags.StringVar(&d.data, "data", "./data", "directory of the members' data directories")
	flags.IntVar(&d.apiPort, "api-port", devdir.APIPort, "API port of the first member; the others follow")
	flags.IntVar(&d.raftPort, "raft-port", devdir.RaftPort, "cluster port of the first member; the others follow")
	flags.StringVar(&d.datacenter, "datacenter", "",
		"name of the datacenter, as other clusters see it, when founding (default dc1)")
	flags.StringSliceVar(&d.zones, "zones", nil, "zones of the members, assigned in turn "+
		"around")
	return cmd
}

// devCluster is the set of processes of `muster dev`.
type devCluster struct {
	env               *environment
	nodes             int
	data              string
	apiPort, raftPort int
	fixed             bool     // the ports are explicit
	datacenter        string   // empty: the default of serve
	zones             []string // assigned to members in turn; empty: unchanged

	members []*devMember
	begin   time.Time
}

type devMember struct {
	n    int
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error
}

func (d *devCluster) dir(n int) string { return filepath.Join(d.data, fmt.Sprint(n)) }

func (d *devCluster) args(n int) []string {
	args := []string{"serve", "--data", d.dir(n), "--name", fmt.Sprintf("node-%d", n),
		"--api", fmt.Sprintf("127.0.0.1:%d", d.apiPort+n-1), "--raft", fmt.Sprintf("127.0.0.1:%d", d.raftPort+n-1)}
	if n == 1 && d.datacenter != "" {
		args = append(args, "--datacenter", d.datacenter)
	}
	if len(d.zones) > 0 {
		args = append(args, "--zone", d.zones[(n-1)%len(d.zones)])
	}
	return args
}

func (d *devCluster) known(n int) bool {
	_, err := os.Stat(filepath.Join(d.dir(n), "node.json"))
	return err == nil
}

func (d *devCluster) step(format string, args ...any) {
	d.env.say("%6.2f s  %s", time.Since(d.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (d *devCluster) run(ctx context.Context) (err error) {
	// The kernel sends Pdeathsig when the thread that started a process ends: keep this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d.begin = time.Now()
	lock, err := devdir.Lock(d.data, d.nodes)
	if err != nil {
		return err
	}
	defer lock.Close()
	if !d.fixed {
		if d.apiPort, d.raftPort, err = devdir.Ports(d.dir(1), d.nodes); err != nil {
			return err
		}
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // the members outlive the reader of this output,
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)  // and stop in order with the terminal
	defer stop()
	defer func() {
		d.stop()
		if ctx.Err() != nil { // Ctrl-C is the normal end
			err = nil
		}
	}()
	present := devdir.Present(d.data, d.nodes)
	if len(present) == 0 {
		return fmt.Errorf("all members in %s were removed from their cluster; delete the directory to begin with a new one",
			d.data)
	}
	resumed := d.known(1)
	for _, n := range present { // existing members first: making a token needs a majority of them
		if d.known(n) || n == 1 {
			if err := d.start(n, ""); err != nil {
				return err
			}
		}
	}
	ready, cancel := context.WithTimeout(ctx, devReady)
	defer cancel()
	if err := d.await(ready, present[0]); err != nil {
		return err
	}
	if resumed {
		d.step("resuming the cluster in %s", d.data)
	} else {
		d.step("node 1 has founded a cluster")
	}
	return d.form(ctx, ready, present)
}

// form lets members join, until all are there, and watches them.
func (d *devCluster) form(ctx, ready context.Context, present []int) error {
	for n := 1; n <= d.nodes; n++ {
		if !slices.Contains(present, n) {
			d.step("node %d was removed from the cluster and is left out", n)
		}
	}
	c, err := d.client(present)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range present[1:] {
		if err := d.join(ready, c, n); err != nil {
			return err
		}
	}
	if err := d.formed(ready, c, len(present)); err != nil {
		return err
	}
	if err := d.welcome(ctx, c, present[0]); err != nil {
		return err
	}
	return d.watch(ctx)
}

// start runs one member in its own process group, so that Ctrl-C reaches it only through this process.
func (d *devCluster) start(n int, token string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir(n), 0o700); err != nil {
		return fmt.Errorf("%s cannot be made: %w", d.dir(n), err)
	}
	log, err := os.OpenFile(filepath.Join(d.dir(n), devLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("the log of node %d cannot be written: %w", n, err)
	}
	defer log.Close()
	m := &devMember{n: n, done: make(chan struct{}), cmd: exec.Command(self, d.args(n)...)}
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { // variables for a member started by hand
		return strings.HasPrefix(v, "MUSTER_JOIN_TOKEN=") || strings.HasPrefix(v, "MUSTER_PEERS=")
	})
	if token != "" {
		m.cmd.Env = append(m.cmd.Env, "MUSTER_JOIN_TOKEN="+token)
	}
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("node %d cannot be started: %w", n, err)
	}
	go func() {
		m.err = m.cmd.Wait()
		close(m.done)
	}()
	d.members = append(d.members, m)
	return nil
}

func (d *devCluster) member(n int) *devMember {
	for _, m := range d.members {
		if m.n == n {
			return m
		}
	}
	return nil
}

// client makes a client of the members that are there, with the founder's token.
func (d *devCluster) client(present []int) (*client.Client, error) {
	founder, err := client.FromData(d.dir(1))
	if err != nil {
		return nil, err
	}
	cfg, err := client.FromData(d.dir(present[0]))
	if err != nil {
		return nil, err
	}
	cfg.Token, cfg.Addrs = founder.Token, nil
	for _, n := range present {
		cfg.Addrs = append(cfg.Addrs, fmt.Sprintf("https://127.0.0.1:%d", d.apiPort+n-1))
	}
	return client.New(cfg)
}

// await blocks until a member answers, its process ends or ctx ends.
func (d *devCluster) await(ctx context.Context, n int) error {
	m := d.member(n)
	for {
		if cfg, err := client.FromData(d.dir(n)); err == nil {
			if c, err := client.New(cfg); err == nil {
				st, err := c.Status(ctx)
				c.Close()
				if err == nil && st.Ready {
					return nil
				}
			}
		}
		select {
		case <-m.done:
			return fmt.Errorf("node %d did not start: %s", n, devdir.LastWords(filepath.Join(d.dir(n), devLog)))
		case <-ctx.Done():
			return fmt.Errorf("node %d was not ready in time; its log is %s", n, filepath.Join(d.dir(n), devLog))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *devCluster) join(ctx context.Context, c *client.Client, n int) error {
	if d.member(n) == nil {
		t, err := c.CreateJoinToken(ctx, client.JoinTokenRequest{NodeID: uint64(n), TTL: 10 * time.Minute, MaxUses: 1,
			Mode: store.ModeFull})
		if err != nil {
			return fmt.Errorf("no join token for node %d: %w", n, err)
		}
		if err := d.start(n, t.Token); err != nil {
			return err
		}
		d.step("node %d starts with a join token", n)
	}
	return d.await(ctx, n)
}

// formed blocks until all nodes members are alive and enough of them vote.
func (d *devCluster) formed(ctx context.Context, c *client.Client, nodes int) error {
	want := min(nodes, 5)
	if want%2 == 0 {
		want--
	}
	for {
		voters, alive := 0, 0
		members, err := c.Members(ctx)
		for _, m := range members {
			if m.Suffrage == "voter" {
				voters++
			}
			if m.Status == "alive" {
				alive++
			}
		}
		if err == nil && voters >= want && alive >= nodes {
			d.step("%d members are ready, %d of them voters", alive, voters)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster was not complete in time (%d members alive, %d voters); the logs are %s",
				alive, voters, filepath.Join(d.data, "*", devLog))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// welcome says where the cluster is; first is a member that is there.
func (d *devCluster) welcome(ctx context.Context, c *client.Client, first int) error {
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	d.env.say("")
	if err := printMembers(d.env, members); err != nil {
		return err
	}
	data := ""
	if filepath.Clean(d.data) != "data" {
		data = " --data " + d.dir(first)
	}
	d.env.say(`
API:          https://127.0.0.1:%d (CA %s), its page at /ui/
admin token:  %s
logs:         %s

Try next, in another shell:
  ./muster members%s
  sqlite3 %s 'select * from v_members'
  ./muster join-token create%s

Ctrl-C stops the cluster; the next start resumes it.`,
		d.apiPort+first-1, filepath.Join(d.dir(first), "ca.crt"), filepath.Join(d.dir(1), "admin.token"),
		filepath.Join(d.data, "*", devLog), data, filepath.Join(d.dir(first), "muster.db"), data)
	return nil
}

// watch blocks until ctx ends and reports members that die; the others keep running.
func (d *devCluster) watch(ctx context.Context) error {
	ended := make(chan *devMember)
	for _, m := range d.members {
		go func() {
			<-m.done
			select {
			case ended <- m:
			case <-ctx.Done():
			}
		}()
	}
	for left := len(d.members); left > 0; left-- {
		select {
		case <-ctx.Done():
			return nil
		case m := <-ended:
			if devdir.Removed(d.dir(m.n)) {
				d.env.say("node %d was removed from the cluster", m.n)
				continue
			}
			how := "has stopped"
			if m.err != nil {
				how = "has ended: " + m.err.Error()
			}
			d.env.say("node %d %s; start it again with: %s %s", m.n, how, os.Args[0], strings.Join(d.args(m.n), " "))
		}
	}
	return errors.New("all members have ended")
}

// stop ends all members and waits for them.
func (d *devCluster) stop() {
	limit := time.After(devStopLimit)
	for _, m := range d.members {
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, m := range d.members {
		select {
		case <-m.done:
		case <-limit:
			_ = m.cmd.Process.Kill()
			<-m.done
		}
	}
	if len(d.members) > 0 {
		d.step("stopped")
	}
}
