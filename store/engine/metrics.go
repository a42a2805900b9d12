package engine

/*
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>

long long sqlite3_memory_used(void);

// Before main, and so before Go's runtime has threads: an arena that exists stays.
__attribute__((constructor)) static void bound_arenas(void) { mallopt(M_ARENA_MAX, 4); }

// Go's monitor thread sleeps for 20 µs at a time while calls of C are under way, and each time it wakes costs some
// 5 µs. With a slack of 200 µs, instead of 50, it wakes a third as often. Threads inherit the slack of the thread that
// starts them (prctl(2), PR_SET_TIMERSLACK). All timers of muster and of dqlite are of milliseconds.
__attribute__((constructor)) static void relax_timers(void) { prctl(PR_SET_TIMERSLACK, 200000, 0, 0, 0); }

static void c_memory(unsigned long long *used, unsigned long long *kept, unsigned long long *sqlite) {
	struct mallinfo2 m = mallinfo2();
	*used = m.uordblks + m.hblkhd;
	*kept = m.fordblks;
	*sqlite = sqlite3_memory_used();
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void *wait_for_gate(void *unused) {
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	return unused;
}

static int start_threads(int n) {
	pthread_t *list = calloc(n, sizeof *list);
	int started = 0;
	if (list == NULL)
		return 0;
	pthread_mutex_lock(&gate);
	while (started < n && pthread_create(&list[started], NULL, wait_for_gate, NULL) == 0)
		started++;
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < started; i++)
		pthread_join(list[i], NULL);
	free(list);
	return started;
}
*/
import "C"

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// instruments are the counters of the write path. All other metrics are read when they are collected.
type instruments struct {
	batch   prometheus.Histogram
	commit  prometheus.Histogram
	leaders prometheus.Counter
	refused prometheus.Counter
	failed  prometheus.Counter

	commits, commitNanos atomic.Int64
}

func (i *instruments) init() {
	i.batch = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "muster_write_batch_size",
		Help: "Requests that one transaction has committed, on the leader.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)})
	i.commit = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "muster_commit_duration_seconds",
		Help:    "Time from handing a transaction to dqlite until a majority has it.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13)})
	i.leaders = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_leader_changes_total",
		Help: "Changes of leader that this member has seen since it started."})
	i.refused = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_writes_refused_total",
		Help: "Writes that the leader has refused for what they asked."})
	i.failed = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_commits_failed_total",
		Help: "Transactions that dqlite did not commit, or of which it is not known; leadership starts afresh."})
}

// committed counts one transaction that a majority has committed.
func (i *instruments) committed(took time.Duration) {
	i.commit.Observe(took.Seconds())
	i.commits.Add(1)
	i.commitNanos.Add(int64(took))
}

// Commits returns how many transactions this member has committed as leader since it started, and their total duration.
func (e *Engine) Commits() (n uint64, took time.Duration) {
	return uint64(e.metrics.commits.Load()), time.Duration(e.metrics.commitNanos.Load())
}

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descReplica   = gauge("muster_replica_revision", "Revision of this member's mirror.")
	descLeading   = gauge("muster_is_leader", "1 on the member that leads and takes writes.")
	descHasLeader = gauge("muster_has_leader", "1 while this member knows of a leader.")
	descRole      = gauge("muster_role", "1 for the role that this member has in Raft; none is a member outside it.",
		"role")
	descServers = gauge("muster_raft_servers",
		"Raft servers in this member's copy of the configuration; absent outside Raft.", "role")
	descQueue      = gauge("muster_write_queue_depth", "Writes that wait for the leader's writer; 0 elsewhere.")
	descMirrorAge  = gauge("muster_mirror_age_seconds", "Time since the mirror was last replaced.")
	descMirrorSize = gauge("muster_mirror_size_bytes",
		"Size of the mirror; about what the database takes of this member's memory.")
	descRaftTerm     = gauge("muster_raft_term", "Raft's term as this member last knew it; absent outside Raft.")
	descRaftIndex    = gauge("muster_raft_log_index", "Last index in a finished segment of this member's Raft log.")
	descRaftBytes    = gauge("muster_raft_bytes", "Size of this member's Raft log and snapshots on its disk.")
	descRaftLogBytes = gauge("muster_raft_log_bytes", "Size of the segments of this member's Raft log.")
	descRaftTaken    = gauge("muster_raft_snapshot_timestamp_seconds",
		"When the newest Raft snapshot was taken; absent while there is none.")
	descRaftSegments  = gauge("muster_raft_log_segments", "Finished segments of this member's Raft log.")
	descRaftSnapshots = gauge("muster_raft_snapshots", "Raft snapshots on this member's disk.")
	descRaftSnapshot  = gauge("muster_raft_snapshot_index", "Index of the newest of them; 0 while there is none.")
	descDisk          = gauge("muster_disk_free_bytes", "Room left on the file system of the data directory.")
	descMemory        = gauge("muster_c_memory_bytes", "Memory of the parts that are not written in Go.", "of")
)

// Collect sends the metrics of this member's engine. It asks no other member.
func (e *Engine) Collect(out chan<- prometheus.Metric) {
	set := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, c := range []prometheus.Collector{e.metrics.batch, e.metrics.commit, e.metrics.leaders, e.metrics.refused,
		e.metrics.failed} {
		c.Collect(out)
	}
	set(descReplica, float64(e.Mirror.Revision()))
	set(descLeading, truth(e.Leading()))
	set(descHasLeader, truth(e.LeaderID() != 0))
	set(descQueue, float64(e.Waiting()))
	own, roles := "none", map[Role]int{}
	for _, v := range e.Servers() {
		if v.NodeID == e.cfg.NodeID {
			own = string(v.Role)
		}
		roles[v.Role]++
	}
	for _, r := range []string{"voter", "standby", "spare", "none"} {
		set(descRole, truth(r == own), r)
	}
	if own != "none" {
		for _, r := range []Role{RoleVoter, RoleStandBy, RoleSpare} {
			set(descServers, float64(roles[r]), string(r))
		}
	}
	e.collectRaft(set)
	memory := heldByC()
	set(descMemory, float64(memory.sqlite), "sqlite")
	set(descMemory, float64(memory.raft), "raft")
	set(descMemory, float64(memory.free), "free")
	if info, err := os.Stat(e.Mirror.path); err == nil {
		set(descMirrorAge, time.Since(info.ModTime()).Seconds())
		set(descMirrorSize, float64(info.Size()))
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(e.Mirror.path), &fs); err == nil {
		set(descDisk, float64(fs.Bavail)*float64(fs.Bsize))
	}
}

// collectRaft sends what the file names of the Raft directory reveal. Files that appear or vanish meanwhile are no
// error.
func (e *Engine) collectRaft(set func(*prometheus.Desc, float64, ...string)) {
	f, term := e.RaftFiles()
	if term == 0 {
		return
	}
	set(descRaftTerm, float64(term))
	set(descRaftIndex, float64(max(f.Last, f.Snapshot)))
	set(descRaftBytes, float64(f.Bytes))
	set(descRaftLogBytes, float64(f.LogBytes))
	set(descRaftSegments, float64(f.Segments))
	set(descRaftSnapshots, float64(f.Snapshots))
	set(descRaftSnapshot, float64(f.Snapshot))
	if !f.TakenAt.IsZero() {
		set(descRaftTaken, float64(f.TakenAt.Unix()))
	}
}

// glibc may give each thread that allocates in C an arena of its own, which keeps freed memory. With many short-lived
// threads that is a third of a member's memory; four arenas are as fast, and two cost a seventh of a write.
// cMemory is what the C code of this process holds, in bytes, unknown to Go's runtime.
type cMemory struct {
	sqlite uint64 // the database in dqlite and the page caches of all connections
	raft   uint64 // everything else in use, most of it entries of the Raft log
	free   uint64 // freed, and available to the next allocation
}

func heldByC() cMemory {
	var used, kept, sqlite C.ulonglong
	C.c_memory(&used, &kept, &sqlite)
	return cMemory{
		sqlite: uint64(sqlite),
		raft:   uint64(max(used, sqlite) - sqlite),
		free:   uint64(kept),
	}
}

const (
	trimEvery  = 10 * time.Second
	keepAtMost = 8 << 20
)

// trimmer returns to the kernel what a burst of writes leaves free, if it is more than keepAtMost. Under load the next
// transactions need the same memory again, and every page that comes back costs a page fault: a trim after each copy of
// the mirror, twice a second, took a fifth of the CPU of a write.
type trimmer struct{ last time.Time }

// giveBack trims if it is time. It takes a millisecond or so.
func (t *trimmer) giveBack(now time.Time) {
	if now.Sub(t.last) < trimEvery {
		return
	}
	t.last = now
	if heldByC().free > keepAtMost {
		C.malloc_trim(0)
	}
}

// Threads starts up to n threads at the same time, ends them, and returns how many could be started. Limits of the user
// (RLIMIT_NPROC), of the cgroup (pids.max) and of memory count alike. Go's runtime would end the process over the first
// thread that cannot be started. A thread takes some 20 µs.
func Threads(n int) int { return int(C.start_threads(C.int(n))) }
