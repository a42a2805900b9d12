package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"muster/cluster/datadir"
)

// A member that answers but does not store is worth less than a dead one: it counts as a voter and confirms nothing. So
// each member tries its disk itself. A disk that has failed often does not answer at all, and the thread that waits for
// it cannot be ended; all that waits is one goroutine, and others judge it by the age of its last success.
const (
	lookEvery   = time.Second     // at the file system: room, inodes, read-only
	storeEvery  = 2 * time.Second // a write beside the Raft log
	storeWithin = 6 * time.Second // without a success the disk counts as failed
	judgeEvery  = 500 * time.Millisecond
	stuck       = 30 * time.Second // for the watchdog: loops that have not run for so long do not run any more
	standstill  = 2 * time.Second  // a judge that slept for longer stood still with the whole process

	enoughInodes = datadir.FewInodes * 3 / 2

	trialSize = 4096
)

// Faults of storing; each is a clause of a sentence.
const (
	faultStuck    = "its disk does not answer"
	faultReadOnly = "its file system is read-only"
	faultInodes   = "its file system is out of inodes"
	faultFull     = "its file system is full"
	faultGone     = "its data directory is gone"
	faultOther    = "its data directory is not the one that it was started with"
	faultLimit    = "its process may not write files as large as it needs (RLIMIT_FSIZE, LimitFSIZE)"
	faultBytes    = "its disk returns other bytes than were written"
	faultAccept   = "it cannot accept connections: no file descriptors are left"
	faultStalled  = "its replica does not move although there is more to replicate"
)

// Storing says whether a member stores, and why not.
type Storing struct {
	OK    bool      `json:"ok"`
	Fault string    `json:"fault,omitempty"` // why it does not, a clause of a sentence
	Since time.Time `json:"since,omitzero"`  // of the fault

	LastWrite  time.Time `json:"lastWrite,omitzero"` // when a write was last on the disk and read again
	WriteMs    int64     `json:"writeMs"`            // how long that took
	FreeInodes uint64    `json:"freeInodes"`
	Inodes     uint64    `json:"inodes"` // 0 where the file system has no fixed number
}

// Stuck reports whether the disk does not answer: whatever waits for it waits for as long as that lasts.
func (s Storing) Stuck() bool { return s.Fault == faultStuck }

// own is the fault that this member has found itself.
func (s Storing) own() string {
	if s.Fault == faultStalled {
		return ""
	}
	return s.Fault
}

// look is what one look at the file system has found.
type look struct {
	inodes, freeInodes uint64
	readOnly           bool
	limited            bool // files may not become as large as they have to
}

// storage judges whether this member stores. The looks come from one goroutine, which a failed disk may block for good.
type storage struct {
	mu      sync.Mutex
	now     Storing
	last    time.Time // success, or the time from which on one can be expected
	failure string    // of the last trial
	looked  look
	judged  time.Time
	starved bool // nothing can be accepted
}

func newStorage(now time.Time) *storage {
	return &storage{now: Storing{OK: true}, last: now, judged: now}
}

// tried takes the outcome of a trial that began at a time.
func (s *storage) tried(began, ended time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure = faultOf(err); err != nil {
		return
	}
	s.last = ended
	s.now.LastWrite, s.now.WriteMs = ended.UTC().Truncate(time.Millisecond), ended.Sub(began).Milliseconds()
}

func (s *storage) saw(l look) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = l
	s.now.FreeInodes, s.now.Inodes = l.freeInodes, l.inodes
}

// accepts takes whether the listeners can accept connections.
func (s *storage) accepts(can bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starved = !can
}

// judge brings the verdict up to date and reports whether it has changed.
func (s *storage) judge(now time.Time, stalled bool) (verdict Storing, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.judged) > standstill && now.After(s.last) {
		s.last = now // it was this process that did not run
	}
	s.judged = now
	fault := s.fault(now, stalled)
	changed = fault != s.now.Fault
	if changed {
		s.now.OK, s.now.Fault, s.now.Since = fault == "", fault, now.UTC().Truncate(time.Millisecond)
		if fault == "" {
			s.now.Since = time.Time{}
		}
	}
	return s.now, changed
}

func (s *storage) fault(now time.Time, stalled bool) string {
	limit := uint64(datadir.FewInodes)
	if s.now.Fault == faultInodes {
		limit = enoughInodes
	}
	switch {
	case now.Sub(s.last) > storeWithin && s.failure == "":
		return faultStuck
	case s.looked.readOnly:
		return faultReadOnly
	case s.looked.limited:
		return faultLimit
	case s.failure != "":
		return s.failure
	case s.looked.inodes > 0 && s.looked.freeInodes < limit:
		return faultInodes
	case s.starved:
		return faultAccept
	case stalled:
		return faultStalled
	}
	return ""
}

// verdict returns the last one.
func (s *storage) verdict() Storing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *storage) judgedAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.judged
}

// keeper watches the disk that this member keeps its state on.
type keeper struct {
	*member
	*view
	storage   *storage
	disk      atomic.Pointer[datadir.Disk]
	stepping  atomic.Bool               // leadership is being given away because this member cannot store
	stalledAt atomic.Pointer[time.Time] // when a leader last said that this replica stands still; nil when it does not
}

func newKeeper(m *member, vw *view) *keeper {
	k := &keeper{member: m, view: vw, storage: newStorage(time.Now())}
	k.disk.Store(&datadir.Disk{})
	k.look()
	return k
}

// Storing returns whether this member stores, as of half a second ago.
func (k *keeper) Storing() Storing { return k.storage.verdict() }

// useDisk looks at the disk and writes to it, again and again. It may hang in a system call for as long as the disk
// does, so nobody waits for it.
func (k *keeper) useDisk(ctx context.Context) {
	dir := k.Store.Dir()
	var at ground
	for next := time.Now(); ; {
		if ctx.Err() != nil {
			return
		}
		k.look()
		if l, err := lookAtInodes(dir); err == nil {
			k.storage.saw(l)
		}
		if began := time.Now(); !began.Before(next) && ctx.Err() == nil {
			err := at.check(dir)
			if err == nil {
				err = tryDisk(dir)
			}
			k.storage.tried(began, time.Now(), err)
			next = began.Add(storeEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
	}
}

// run judges the disk by what useDisk brings, tells of changes, and gives leadership away while this member
// cannot store.
func (k *keeper) run(ctx context.Context) {
	ended := make(chan struct{})
	go func() { defer close(ended); k.useDisk(ctx) }()
	defer func() {
		select {
		case <-ended:
		case <-time.After(time.Second): // the disk holds it
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(judgeEvery):
		}
		now := time.Now()
		k.storage.accepts(!k.Transport.Starved(now) && !k.Connections.Starved(now))
		verdict, changed := k.storage.judge(now, k.toldStalled(now))
		switch {
		case changed && verdict.OK:
			k.log.Info("this member stores again")
			k.Wake()
		case changed:
			k.log.Warn("this member cannot store: leadership and vote go to other members where there are some",
				"reason", verdict.Fault)
			k.Wake()
		}
		if verdict.own() != "" && k.stepping.CompareAndSwap(false, true) {
			go func() { // the disk may hold it
				defer k.stepping.Store(false)
				k.stepDown(ctx)
			}()
		}
	}
}

// toldStalled reports whether a leader has said within the last seconds that this replica stands still.
func (k *keeper) toldStalled(now time.Time) bool {
	at := k.stalledAt.Load()
	return at != nil && now.Sub(*at) < 3*probeEvery
}

// Lively reports, for a watchdog, whether the loops of this member run. A member that waits for its disk counts as
// alive: a restart would not help it.
func (k *keeper) Lively() bool {
	return time.Since(k.storage.judgedAt()) < stuck && (k.Storing().own() != "" || time.Since(k.Store.Beat()) < stuck)
}

// Sentence says in a few words how this member is, for the status line of a service manager.
func (k *keeper) Sentence() string {
	own, leader := k.Store.NodeID(), k.Store.LeaderID()
	text := fmt.Sprintf("node %d follows node %d", own, leader)
	switch {
	case k.Store.Leading():
		text = fmt.Sprintf("node %d leads", own)
	case leader == 0:
		text = fmt.Sprintf("node %d knows no leader", own)
	}
	if fault := k.Storing().Fault; fault != "" {
		text += "; cannot store: " + fault
	}
	return text
}

// stepDown gives leadership to another voter. It needs neither the disk nor the leader's loop, which may wait for it.
func (k *keeper) stepDown(ctx context.Context) {
	if !k.Store.Leading() {
		return
	}
	to := k.successor()
	if to == 0 {
		return
	}
	k.log.Warn("leadership goes to another member: this one cannot store", "to", to)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := k.Store.StepDown(ctx, to); err != nil && ctx.Err() == nil {
		k.log.Warn("leadership could not be given away", "to", to, "err", err)
	}
}

// Disk returns what the last look has found.
func (k *keeper) Disk() datadir.Disk { return *k.disk.Load() }

// look looks once, and says so when that changes anything.
func (k *keeper) look() {
	before := k.Disk()
	free, total, err := datadir.StatDisk(k.Store.Dir())
	if err != nil {
		k.log.Debug("the disk could not be looked at", "err", err)
		return
	}
	before.Reserve = k.DiskReserve.Of(total)
	now := before.Next(free, total)
	k.disk.Store(&now)
	switch {
	case now.Low && !before.Low:
		k.log.Warn("low on disk space: leadership and vote go to other members where there are some; make room or add disk",
			"free", now.Free, "reserve", now.Reserve)
		k.Wake()
	case !now.Low && before.Low:
		k.log.Info("there is room on the disk again", "free", now.Free, "reserve", now.Reserve)
		k.Wake()
	}
}
