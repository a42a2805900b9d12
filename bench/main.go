// Command bench measures muster beside etcd, on this machine, in one run. See README.md.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type bench struct {
	musterPath, etcdPath         string // empty: not there
	duration                     time.Duration
	rounds, conns                int
	formations, kills, etcdKills int
	transfers, maxJoins, members int
	secrets                      int
	delays                       []time.Duration
	clients                      []int

	fleet   *fleet
	muster  *musterSystem    // nil: not there
	systems []system         // muster and etcd
	beside  []system         // more yardsticks, under the loads only: etcd with TLS and a password, dqlite alone
	running map[string]start // those that several parts share
	report  *report
}

// defaultConns is what multiplexed clients share; see README.md for why.
const defaultConns = 16

// part is one thing to measure.
type part struct {
	name    string
	shared  bool // it uses the clusters of the other shared ones
	measure func(context.Context)
}

func main() {
	if args := os.Args[1:]; len(args) == 4 && args[0] == dqliteCommand {
		if err := dqliteNode(args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run())
}

func run() int {
	b := &bench{running: make(map[string]start), report: &report{Machine: make(map[string]string)}}
	parts := []part{
		{"binary", false, b.binary}, {"formation", false, b.formation},
		{"idle", true, b.idle}, {"reads", true, b.reads}, {"writes", true, b.writes}, {"peering", true, b.peering},
		{"joins", false, b.joins}, {"enroll", false, b.enroll}, {"rotation", false, b.rotation}, {"failover", false, b.failover}, {"handover", false, b.handover},
		{"events", false, b.events}, {"snapshot", false, b.snapshot},
	}
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	usual := strings.Join(names, ",")
	parts, names = append(parts, part{"latency", false, b.latency}), append(names, "latency")
	var (
		muster  = flag.String("muster", "../muster", "the muster `program`")
		etcd    = flag.String("etcd", "etcd", "the etcd `program`")
		rival   = flag.String("rival", "", "another muster `program`, or a script that runs one, to measure beside under the loads")
		only    = flag.String("only", usual, "the `parts` to measure")
		json    = flag.String("json", "", "also write the report to this `file`")
		profile = flag.String("profile", "", "leave CPU and mutex profiles of muster's members in this `directory`; needs a muster built with -tags profile")
		keep    = flag.Bool("keep", false, "keep the data directories and logs")
		version = flag.Int("http", 1, "the `version` of HTTP that muster's clients speak, 1 or 2")
		keyed   = flag.Bool("keyed", false, "mint with an Idempotency-Key also in the writes part")
		delays  = flag.String("delays", "5ms,20ms,50ms", "the `times` between members in the latency part, one way")
		clients = flag.String("clients", "1,16,64,256", "the `numbers` of clients that write at the leader")
		limit   = flag.Duration("limit", 20*time.Minute, "give up after this time")
	)
	flag.DurationVar(&b.duration, "d", 5*time.Second, "duration of each throughput measurement")
	flag.IntVar(&b.rounds, "rounds", 2, "turns into which each is divided, muster and etcd alternating")
	flag.IntVar(&b.conns, "conns", 0, "connections that the clients share (with multiplexing; 0: 16)")
	flag.IntVar(&b.formations, "formations", 3, "clusters to form")
	flag.IntVar(&b.kills, "kills", 20, "leaders to kill")
	flag.IntVar(&b.etcdKills, "etcd-kills", 20, "leaders of etcd to kill, at most -kills")
	flag.IntVar(&b.transfers, "handovers", 10, "planned hand-overs")
	flag.IntVar(&b.maxJoins, "joins", 5000, "joins at most, in each of two measurements")
	flag.IntVar(&b.members, "members", 10000, "members to grow to before they are listed")
	flag.IntVar(&b.secrets, "secrets", 10000, "secrets to re-encrypt")
	flag.Parse()

	wanted := strings.Split(*only, ",")
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			fmt.Fprintf(os.Stderr, "bench: there is no part %q; there are %s\n", name, strings.Join(names, ", "))
			return 2
		}
	}
	if flag.NArg() > 0 || b.rounds < 1 || b.duration <= 0 || *version != 1 && *version != 2 || b.kills < 1 || b.etcdKills < 1 || b.transfers < 1 || b.formations < 1 || b.maxJoins < 100 || b.members < 0 || b.secrets < 1 {
		fmt.Fprintln(os.Stderr, "bench: a number is out of range, or there is an argument too many; see -help")
		return 2
	}
	for text := range strings.SplitSeq(*delays, ",") {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			fmt.Fprintf(os.Stderr, "bench: %q is no delay\n", text)
			return 2
		}
		b.delays = append(b.delays, d)
	}
	for text := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "bench: %q is no number of clients\n", text)
			return 2
		}
		b.clients = append(b.clients, n)
	}
	b.find(*muster, *etcd)
	if b.muster != nil {
		b.muster.http2, b.muster.keyed = *version == 2, *keyed
	}
	if path, err := exec.LookPath(*rival); err == nil && b.muster != nil {
		other := *b.muster
		other.label = "rival"
		other.program, _ = filepath.Abs(path)
		b.beside = append(b.beside, &other)
	} else if *rival != "" {
		b.report.note("the rival was not measured: %v", err)
	}
	if len(b.systems) == 0 {
		fmt.Fprintln(os.Stderr, "bench: there is neither a muster nor an etcd to measure")
		return 1
	}

	var err error
	if b.fleet, err = newFleet(); err == nil && *profile != "" {
		err = b.fleet.profileInto(*profile)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	defer b.fleet.close(*keep)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()

	b.describe(ctx)
	b.report.Machine["settings"] = fmt.Sprintf("%v each in %d turns; 64 clients are %d connections to muster (HTTPS, HTTP/%d), %d to etcd (plaintext gRPC)",
		b.duration, b.rounds, b.connections(b.muster, 64), *version, b.connections(etcdSystem{}, 64))
	for _, p := range parts {
		if slices.Contains(wanted, p.name) && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "bench: measuring", p.name)
			if !p.shared {
				b.stopShared()
			}
			b.fleet.measuring(p.name)
			p.measure(ctx)
			b.fleet.cutProfiles(p.name)
		}
	}
	if ctx.Err() != nil {
		b.report.note("interrupted: the rows from here on are missing (%v)", context.Cause(ctx))
	}
	b.report.print(os.Stdout)
	if *json != "" {
		if err := b.report.save(*json); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
	}
	if b.report.failed || b.muster == nil || ctx.Err() != nil {
		return 1
	}
	return 0
}

// find looks for the two programs; what is missing is said in the report.
func (b *bench) find(muster, etcd string) {
	if path, err := exec.LookPath(muster); err != nil {
		b.report.note("muster was not measured: %v", err)
	} else {
		b.musterPath, _ = filepath.Abs(path)
		b.muster = &musterSystem{program: b.musterPath}
		b.systems = append(b.systems, b.muster)
	}
	if path, err := exec.LookPath(etcd); err != nil {
		b.report.note("etcd was not measured, so there are no ratios: %v (Debian: apt-get install etcd-server)", err)
	} else {
		b.etcdPath, _ = filepath.Abs(path)
		b.systems = append(b.systems, etcdSystem{program: b.etcdPath})
		b.beside = append(b.beside, etcdSystem{program: b.etcdPath, secured: true})
	}
	if b.muster != nil {
		b.beside = append(b.beside, engineSystem{b})
	}
}

// start is what came of starting a shared cluster.
type start struct {
	cluster cluster
	err     error
}

// shared returns the cluster that the idle, reads and writes parts use. It is started once, also when that fails.
func (b *bench) shared(ctx context.Context, s system) (cluster, error) {
	if _, tried := b.running[s.name()]; !tried {
		c, err := s.start(ctx, b.fleet)
		b.running[s.name()] = start{c, err}
	}
	return b.running[s.name()].cluster, b.running[s.name()].err
}

func (b *bench) stopShared() {
	for _, s := range b.running {
		if s.err == nil {
			stop(s.cluster)
		}
	}
	clear(b.running)
}

// connections tells how many connections the clients of a throughput measurement share. HTTP/1.1 cannot share any.
func (b *bench) connections(s system, clients int) int {
	switch m := s.(type) {
	case *musterSystem:
		if m == nil || !m.http2 {
			return clients
		}
	case engineSystem:
		return 1
	}
	if b.conns > 0 {
		return min(b.conns, clients)
	}
	return min(defaultConns, clients)
}

// add makes a row of the report, unless the benchmark is ending: then the figures would be of half a measurement.
func (b *bench) add(ctx context.Context, what, unit string, lower bool, o outcome, g *goal) {
	if ctx.Err() == nil {
		b.report.add(what, unit, lower, o, g)
	}
}

// newKey makes a random key.
func newKey() string { return rand.Text() }
