// Command bench measures muster next to etcd, on this machine, in one run. See README.md.
package main

import (
	"context"
	"crypto/rand"
	"errors"
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
	musterPath, etcdPath         string // empty: not found
	duration                     time.Duration
	rounds, conns                int
	formations, kills, etcdKills int
	transfers, maxJoins, members int
	secrets                      int
	delays                       []time.Duration
	clients                      []int

	fleet   *fleet
	muster  *musterSystem    // nil: not found
	systems []system         // muster and etcd
	beside  []system         // measured only under load: etcd with TLS and a password, dqlite alone, a rival
	running map[string]start // clusters shared by several parts
	report  *report
}

// defaultConns is the number of connections that multiplexed clients share; README.md has the reason.
const defaultConns = 16

// part is one measurement.
type part struct {
	name    string
	shared  bool // it uses the same clusters as the other shared parts
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

// options are the flags that do not stay in the bench.
type options struct {
	muster, etcd, rival string
	only                string
	json, profile       string
	keep, keyed         bool
	http                int
	delays, clients     string
	limit               time.Duration
}

// parts lists what can be measured; latency and attacks are not in the usual run.
func (b *bench) parts() (all []part, usual string) {
	all = []part{
		{"binary", false, b.binary},
		{"formation", false, b.formation},
		{"idle", true, b.idle},
		{"reads", true, b.reads},
		{"writes", true, b.writes},
		{"peering", true, b.peering},
		{"joins", false, b.joins},
		{"enroll", false, b.enroll},
		{"rotation", false, b.rotation},
		{"failover", false, b.failover},
		{"handover", false, b.handover},
		{"events", false, b.events},
		{"snapshot", false, b.snapshot},
	}
	usual = namesOf(all)
	return append(all, part{"latency", false, b.latency}, part{"attacks", false, b.attacks}), usual
}

// namesOf joins the names of parts with commas.
func namesOf(parts []part) string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return strings.Join(names, ",")
}

// flags declares the command line.
func (b *bench) flags(usual string) *options {
	var o options
	flag.StringVar(&o.muster, "muster", "../muster", "the muster `program`")
	flag.StringVar(&o.etcd, "etcd", "etcd", "the etcd `program`")
	flag.StringVar(&o.rival, "rival", "",
		"another muster `program`, or a script that runs one, to measure in the same turns")
	flag.StringVar(&o.only, "only", usual, "the `parts` to measure")
	flag.StringVar(&o.json, "json", "", "also write the report to this `file`")
	flag.StringVar(&o.profile, "profile", "",
		"`directory` for CPU, heap and mutex profiles of muster's members; needs a muster built with -tags profile")
	flag.BoolVar(&o.keep, "keep", false, "keep the data directories and logs")
	flag.IntVar(&o.http, "http", 1, "the `version` of HTTP for muster's clients, 1 or 2")
	flag.BoolVar(&o.keyed, "keyed", false, "mint with an Idempotency-Key also in the writes part")
	flag.StringVar(&o.delays, "delays", "5ms,20ms,50ms", "the `times` between members in the latency part, one way")
	flag.StringVar(&o.clients, "clients", "1,16,64,256", "the `numbers` of clients that write at the leader")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "give up after this time")
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
	return &o
}

// check rejects values out of range, and parses the lists.
func (b *bench) check(o *options, parts []part) error {
	for name := range strings.SplitSeq(o.only, ",") {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q; there are %s", name, namesOf(parts))
		}
	}
	least := min(b.rounds, b.kills, b.etcdKills, b.transfers, b.formations, b.maxJoins/100, b.secrets)
	if flag.NArg() > 0 || least < 1 || b.members < 0 || b.duration <= 0 || o.http != 1 && o.http != 2 {
		return errors.New("a number is out of range, or there is an argument too many; see -help")
	}
	for text := range strings.SplitSeq(o.delays, ",") {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is no delay", text)
		}
		b.delays = append(b.delays, d)
	}
	for text := range strings.SplitSeq(o.clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no number of clients", text)
		}
		b.clients = append(b.clients, n)
	}
	return nil
}

func run() int {
	b := &bench{running: make(map[string]start), report: &report{Machine: make(map[string]string)}}
	parts, usual := b.parts()
	o := b.flags(usual)
	fail := func(status int, err error) int {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return status
	}
	if err := b.check(o, parts); err != nil {
		return fail(2, err)
	}
	b.find(o)
	if len(b.systems) == 0 {
		return fail(1, errors.New("there is neither a muster nor an etcd to measure"))
	}
	var err error
	if b.fleet, err = newFleet(); err == nil && o.profile != "" {
		err = b.fleet.profileInto(o.profile)
	}
	if err != nil {
		return fail(1, err)
	}
	defer b.fleet.close(o.keep)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()

	b.describe(ctx)
	b.report.Machine["settings"] = fmt.Sprintf(
		"%v each in %d turns; 64 clients are %d connections to muster (HTTPS, HTTP/%d), %d to etcd (plaintext gRPC)",
		b.duration, b.rounds, b.connections(b.muster, 64), o.http, b.connections(etcdSystem{}, 64))
	b.measure(ctx, parts, strings.Split(o.only, ","))
	b.report.print(os.Stdout)
	if o.json != "" {
		if err := b.report.save(o.json); err != nil {
			return fail(1, err)
		}
	}
	if b.report.failed || b.muster == nil || ctx.Err() != nil {
		return 1
	}
	return 0
}

// measure runs the wanted parts in order, until ctx ends.
func (b *bench) measure(ctx context.Context, parts []part, wanted []string) {
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
}

// find looks for the programs; the report names missing ones.
func (b *bench) find(o *options) {
	if path, err := exec.LookPath(o.muster); err != nil {
		b.report.note("muster was not measured: %v", err)
	} else {
		b.musterPath, _ = filepath.Abs(path)
		b.muster = &musterSystem{program: b.musterPath, http2: o.http == 2, keyed: o.keyed}
		b.systems = append(b.systems, b.muster)
	}
	if path, err := exec.LookPath(o.etcd); err != nil {
		b.report.note("etcd was not measured, so there are no ratios: %v (Debian: apt-get install etcd-server)", err)
	} else {
		b.etcdPath, _ = filepath.Abs(path)
		b.systems = append(b.systems, etcdSystem{program: b.etcdPath})
		b.beside = append(b.beside, etcdSystem{program: b.etcdPath, secured: true})
	}
	if b.muster != nil {
		b.beside = append(b.beside, engineSystem{b})
	}
	if o.rival == "" {
		return
	}
	path, err := exec.LookPath(o.rival)
	if err != nil || b.muster == nil {
		b.report.note("the rival was not measured: %v", err)
		return
	}
	other := *b.muster
	other.label = "rival"
	other.program, _ = filepath.Abs(path)
	b.beside = append(b.beside, &other)
}

// start is the result of starting a shared cluster.
type start struct {
	cluster cluster
	err     error
}

// shared returns the cluster of the shared parts. It is started once; a failure is not retried.
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

// connections returns how many connections the clients of a throughput measurement use. HTTP/1.1 clients share none.
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

// add adds a row to the report, unless the benchmark was interrupted in the middle of the measurement.
func (b *bench) add(ctx context.Context, what, unit string, lower bool, o outcome, g *goal) {
	if ctx.Err() == nil {
		b.report.add(what, unit, lower, o, g)
	}
}

// newKey makes a random key.
func newKey() string { return rand.Text() }
