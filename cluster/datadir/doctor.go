package datadir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"muster/certs"
	"muster/cluster/transport"
	"muster/store"
)

// States of a finding.
const (
	FindingOK   = "ok"
	FindingWarn = "warn"
	FindingFail = "fail"
)

// Finding is the result of one check. Next is what to do about it.
type Finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"`
}

// doctor collects findings about one data directory.
type doctor struct {
	d       *Dir // not locked unless the member is stopped
	node    *Node
	running bool
	list    []Finding
}

func (x *doctor) say(check, state, next, format string, args ...any) {
	x.list = append(x.list, Finding{Check: check, State: state, Next: next, Detail: fmt.Sprintf(format, args...)})
}

// Examine checks the data directory of a member, running or not, and what can be seen from it. It changes nothing,
// except that it closes open segments of a stopped member's log, as the next start would. It blocks for some seconds
// while it asks other members.
func Examine(ctx context.Context, path string, reserve Reserve) []Finding {
	x := &doctor{d: &Dir{Path: path}}
	defer giveBack(path) // root may have made files
	if !x.directory() {
		return x.list
	}
	if lock := x.lock(); lock != nil {
		defer lock.Close()
	}
	closed := x.owners() && os.Geteuid() != 0 // unreadable files are not damaged
	x.modes()
	x.identity()
	x.twins()
	x.certificates()
	var members []store.Member
	if !closed {
		x.raftLog()
		members = x.mirror()
	}
	x.disk(reserve)
	x.ports(ctx)
	x.accepted(ctx, members)
	x.clocks(ctx, members)
	x.leftovers()
	return x.list
}

func (x *doctor) directory() bool {
	if _, err := os.Stat(x.d.Path); err != nil {
		x.say("directory", FindingFail, "give the data directory of a member with --data",
			"%s", plainError(dirError(x.d.Path, err)))
		return false
	}
	n, err := x.d.Node()
	switch {
	case errors.Is(err, syscall.EIO):
		x.say("directory", FindingFail,
			"look at the disk (dmesg) before anything else; a member whose disk is lost is removed, "+
				"and joins again with an empty directory", "%v", err)
		return false
	case err != nil:
		x.say("directory", FindingFail, "restore node.json from a copy, or remove the member and join again with an empty "+
			"directory", "%v", err)
		return false
	case n == nil:
		next := "give the data directory of a member with --data"
		if err := x.d.CheckFresh(); err != nil { // the disk may not be mounted
			next = err.Error()
		}
		x.say("directory", FindingFail, next, "%s has no node.json: it has not taken part in a cluster", x.d.Path)
		return false
	}
	x.node = n
	x.say("directory", FindingOK, "", "node %d (%s) of cluster %s", n.NodeID, n.Name, n.ClusterID)
	return true
}

func plainError(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "it does not exist"
	}
	return err.Error()
}

// lock finds out whether a process uses the directory. If none does, the lock keeps others away during the checks.
func (x *doctor) lock() *os.File {
	f, err := os.OpenFile(x.d.file(lockFile), os.O_RDWR, 0)
	if err != nil {
		x.say("process", FindingWarn, "", "the lock file cannot be opened: %v", err)
		return nil
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		x.running = true
		x.say("process", FindingOK, "", "a muster is running on this directory")
		return nil
	}
	x.say("process", FindingOK, "", "no muster is running on this directory")
	return f
}

func (x *doctor) modes() {
	var bad []string
	for _, name := range []string{identityFile, adminFile, workloadsFile, foundingFile, restoreFile, httpKey, transportKey,
		recoveryFile, MirrorFile, bookFile} {
		if info, err := os.Stat(x.d.file(name)); err == nil && info.Mode().Perm()&0o077 != 0 {
			bad = append(bad, fmt.Sprintf("%s (%v)", name, info.Mode().Perm()))
		}
	}
	if info, err := os.Stat(x.d.Path); err == nil && info.Mode().Perm()&0o022 != 0 {
		bad = append(bad, fmt.Sprintf("the directory itself (%v)", info.Mode().Perm()))
	}
	if len(bad) > 0 {
		x.say("file modes", FindingWarn, "chmod 600 the files and 700 the directory; if others have had access, rotate: "+
			"muster key rotate", "others may read or write %s", strings.Join(bad, ", "))
		return
	}
	x.say("file modes", FindingOK, "", "what is secret is readable by its owner only")
}

func (x *doctor) identity() {
	data, err := x.d.read(identityFile)
	if err == nil {
		_, err = certs.ParseIdentity(data)
	}
	if err != nil {
		x.say("identity", FindingFail, "restore node.key from a copy, or remove the member and join again with an empty "+
			"directory", "node.key cannot be used: %s", plainError(err))
		return
	}
	x.say("identity", FindingOK, "", "node.key is an age identity")
}

func (x *doctor) raftLog() {
	if err := x.d.CheckLog(x.node); err != nil {
		x.say("raft log", FindingFail, "see docs/recovery.md: one member is broken", "%v", err)
		return
	}
	dir := x.d.file(RaftDir)
	files, err := store.InspectRaft(dir)
	if err == nil && !x.running {
		_, err = store.LastEntry(dir)
	}
	if err != nil {
		what, known := store.Diagnose(err)
		if !known {
			what.Next = "keep a copy of the directory, then see docs/recovery.md"
		}
		x.say("raft log", FindingFail, what.Next, "%s", strings.TrimPrefix(what.What+": "+err.Error(), ": "))
		return
	}
	last, running := max(files.Last, files.Snapshot), ""
	if x.running {
		running = "; what the running member writes now is not counted"
	}
	x.say("raft log", FindingOK, "", "%s closed up to index %d, %s, the newest of index %d; %d MiB%s",
		count(files.Segments, "segment"), last, count(files.Snapshots, "snapshot"), files.Snapshot, files.Bytes>>20, running)
}

// count returns a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (x *doctor) mirror() []store.Member {
	schema, err := store.CheckMirror(x.d.file(MirrorFile))
	if err != nil {
		x.say("mirror", FindingWarn, "the mirror is only a copy: delete muster.db and start the member, which makes it again",
			"muster.db cannot be used: %s", plainError(err))
		return nil
	}
	c, members, err := store.MirrorMembers(x.d.file(MirrorFile))
	switch {
	case err != nil:
		x.say("mirror", FindingWarn, "delete muster.db and start the member, which makes it again",
			"muster.db cannot be read: %v", err)
	case schema > store.LatestSchema():
		x.say("mirror", FindingFail, "use the newer muster that the other members have",
			"the database has schema %d and this binary knows %d", schema, store.LatestSchema())
	default:
		x.say("mirror", FindingOK, "", "muster.db is intact: revision %d, schema %d, %s", c.Revision, schema,
			count(len(members), "member"))
	}
	return members
}

func (x *doctor) ports(ctx context.Context) {
	for _, p := range []struct{ name, flag, addr string }{{"API port", "--api", x.node.APIAddress},
		{"cluster port", "--raft", x.node.RaftAddress}} {
		if !x.running {
			l, err := net.Listen("tcp", p.addr)
			switch {
			case errors.Is(err, syscall.EADDRINUSE):
				x.say(p.name, FindingFail, "stop the process that listens there (ss -ltnp), or give this member another address "+
					"with "+p.flag, "%s is in use by another process", p.addr)
			case err != nil:
				x.say(p.name, FindingWarn, "", "%s cannot be listened on here: %v", p.addr, err)
			default:
				l.Close()
				x.say(p.name, FindingOK, "", "%s is free", p.addr)
			}
			continue
		}
		dialer := net.Dialer{Timeout: 2 * time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", p.addr)
		if err != nil {
			x.say(p.name, FindingFail, "look at the member's log: it runs and does not listen",
				"no process accepts a connection at %s: %v", p.addr, err)
			continue
		}
		conn.Close()
		if p.flag == "--raft" {
			x.say(p.name, FindingOK, "", "%s takes connections", p.addr)
			continue
		}
		st, _, err := x.d.askStatus(ctx, p.addr)
		switch {
		case err != nil:
			x.say(p.name, FindingFail, "find out who listens there (ss -ltnp)",
				"%s does not answer as this cluster's API: %v", p.addr, err)
		case st.Cluster.NodeID != x.node.NodeID:
			x.say(p.name, FindingFail, "two members have the same address: give one another with "+p.flag,
				"node %d answers at %s", st.Cluster.NodeID, p.addr)
		case len(st.Notices) > 0:
			state := FindingWarn
			if st.Cluster.LeaderNodeID == 0 {
				state = FindingFail
			}
			for _, text := range st.Notices {
				what, next, _ := strings.Cut(text, "; ")
				x.say(p.name, state, next, "%s answers: %s", p.addr, what)
			}
		case st.Cluster.LeaderNodeID == 0:
			x.say(p.name, FindingWarn, "start the other voters; if a majority is lost for good, see docs/recovery.md",
				"%s answers, and knows no leader", p.addr)
		default:
			x.say(p.name, FindingOK, "", "%s answers; node %d leads", p.addr, st.Cluster.LeaderNodeID)
		}
	}
}

type memberStatus struct {
	Notices []string `json:"notices"`
	Cluster struct {
		NodeID       uint64 `json:"nodeId"`
		LeaderNodeID uint64 `json:"leaderNodeId"`
	} `json:"cluster"`
}

// askStatus requests a member's status over its API and compares its clock with ours: skew is its time less ours.
func (d *Dir) askStatus(ctx context.Context, addr string) (st memberStatus, skew time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	trusted, err := d.agedTLS(addr)
	if err != nil {
		return st, 0, err
	}
	transport := &http.Transport{TLSClientConfig: trusted, DisableKeepAlives: true}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/api/v1/status", nil)
	if err != nil {
		return st, 0, err
	}
	begin := time.Now()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return st, 0, err
	}
	defer resp.Body.Close()
	middle := begin.Add(time.Since(begin) / 2)
	var answer struct{ Result memberStatus }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return st, 0, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		skew = date.Add(time.Second / 2).Sub(middle) // the header has whole seconds
	}
	return answer.Result, skew, nil
}

func (x *doctor) clocks(ctx context.Context, members []store.Member) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	var worst time.Duration
	var who uint64
	answered, asked, running := 0, 0, 0
	for i := range members {
		m := &members[i]
		if m.Role == store.RoleNone || m.NodeID == x.node.NodeID {
			continue
		}
		asked++
		wait.Go(func() {
			_, skew, err := x.d.askStatus(ctx, m.APIAddress)
			runs := err == nil || transport.TakesConnection(ctx, m.RaftAddress) || transport.TakesConnection(ctx, m.APIAddress)
			mu.Lock()
			defer mu.Unlock()
			if runs {
				running++
			}
			if err != nil {
				return
			}
			answered++
			if skew.Abs() >= worst.Abs() {
				worst, who = skew, m.NodeID
			}
		})
	}
	wait.Wait()
	text := fmt.Sprintf("%d of %d other Raft servers answer", answered, asked)
	switch {
	case running > answered:
		x.say("other members", FindingWarn, "they run: this is no lost majority, and nothing to recover; look at what "+
			"they say themselves", "%s; %d more take connections and do not answer this member", text, running-answered)
	case answered < asked && answered+1 <= (asked+1)/2:
		x.say("other members", FindingWarn, "start them; if they have moved, start this member with --peer ID=HOST:PORT "+
			"for one of them, or with "+
			"--rejoin --join TOKEN and a new token; if a majority of the voters is lost for good, see docs/recovery.md",
			"%s", text)
	default:
		x.say("other members", FindingOK, "", "%s", text)
	}
	const next = "synchronise the clocks (chrony, systemd-timesyncd): tokens and certificates have times in them"
	switch {
	case answered == 0:
	case worst.Abs() > time.Minute:
		x.say("clock", FindingFail, next, "the clock of node %d differs by %s", who, worst.Round(time.Second))
	case worst.Abs() > 5*time.Second:
		x.say("clock", FindingWarn, next, "the clock of node %d differs by %s", who, worst.Round(time.Second))
	default:
		x.say("clock", FindingOK, "", "the clocks agree to within %s", max(time.Second, worst.Abs().Round(time.Second)))
	}
}

func (x *doctor) leftovers() {
	if _, err := os.Stat(x.d.file(foundingFile)); err == nil && !x.running {
		x.say("founding", FindingWarn, "start the member: the founding is repeated",
			"the cluster was never founded: the first start did not come to its end")
	}
	if r, err := x.d.Recovery(); err != nil {
		x.say("recovery", FindingWarn, "see docs/recovery.md", "%v", err)
	} else if r != nil {
		x.say("recovery", FindingOK, "",
			"a recovery was carried out (voters %v); it is settled when this member first leads", r.Voters)
	}
	kept, _ := filepath.Glob(x.d.file("raft.before-recovery-*"))
	if len(kept) > 0 {
		x.say("kept copies", FindingWarn, "delete them when the cluster has what you expect",
			"%d Raft directories of before a recovery take up room", len(kept))
	}
}
