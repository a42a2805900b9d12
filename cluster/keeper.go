package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"muster/cluster/datadir"
	"muster/store"
)

// A member that answers but cannot write is worse than a dead one: it counts as a voter and confirms nothing. So each
// member tests its own disk. A failed disk often hangs, and the thread that waits for it cannot be stopped; therefore
// only one goroutine uses the disk, and others judge it by the age of its last success.
const (
	lookEvery   = time.Second     // at the file system: room, inodes, read-only
	storeEvery  = 2 * time.Second // a write beside the Raft log
	roomEvery   = 4               // of these writes one tries whether there is room for more
	storeWithin = 6 * time.Second // without a success the disk counts as failed
	judgeEvery  = 500 * time.Millisecond
	stuck       = 30 * time.Second // for the watchdog: loops that have not run for this long are hung
	standstill  = 2 * time.Second  // a longer gap means that the whole process was suspended

	enoughInodes = datadir.FewInodes * 3 / 2

	trialSize = 4096
)

// Storage faults; each is a clause of a sentence.
const (
	faultStuck    = "its disk does not answer"
	faultReadOnly = "its file system is read-only"
	faultInodes   = "its file system is out of inodes"
	faultFull     = "its file system is full"
	faultGone     = "its data directory is gone"
	faultOther    = "its data directory has been replaced since its start"
	faultLimit    = "its process may not write files as large as it needs (RLIMIT_FSIZE, LimitFSIZE)"
	faultThreads  = "its process cannot start threads (RLIMIT_NPROC, TasksMax)"
	faultBytes    = "its disk returns other data than was written"
	faultAccept   = "it cannot accept connections: no file descriptors are left"
	faultStalled  = "its replica does not advance although the leader has more"
)

// Storing reports whether a member can write to its disk, and why not.
type Storing struct {
	OK    bool      `json:"ok"`
	Fault string    `json:"fault,omitempty"` // why it cannot, a clause of a sentence
	Since time.Time `json:"since,omitzero"`  // of the fault

	LastWrite  time.Time `json:"lastWrite,omitzero"` // when a test write was last synced and read back
	WriteMs    int64     `json:"writeMs"`            // its duration in milliseconds
	FreeInodes uint64    `json:"freeInodes"`
	Inodes     uint64    `json:"inodes"` // 0 where the file system has no fixed number
}

// Stuck reports whether the disk hangs: everything that waits for it waits as long as that lasts.
func (s Storing) Stuck() bool { return s.Fault == faultStuck }

// own returns the fault, unless a leader reported it.
func (s Storing) own() string {
	if s.Fault == faultStalled {
		return ""
	}
	return s.Fault
}

// look is the result of one check of the file system.
type look struct {
	inodes, freeInodes uint64
	readOnly           bool
	limited            bool // RLIMIT_FSIZE is too small
}

// storage decides whether this member can write to its disk. One goroutine supplies the results, which a failed disk
// may block forever.
type storage struct {
	mu      sync.Mutex
	now     Storing
	last    time.Time // last success, or the time since which one is expected
	failure string    // of the last test
	looked  look
	judged  time.Time
	starved bool   // no connections can be accepted
	written uint64 // number of the last test write, which is on the disk
}

func newStorage(now time.Time) *storage {
	return &storage{now: Storing{OK: true}, last: now, judged: now}
}

// wrote records that the test write with a number is on the disk.
func (s *storage) wrote(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = number
}

// stored returns the number of the last test write of this process that is on the disk; 0: none.
func (s *storage) stored() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// tried records the result of a test write.
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

// accepts records whether the listeners can accept connections.
func (s *storage) accepts(can bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starved = !can
}

// judge updates the verdict and reports whether it has changed.
func (s *storage) judge(now time.Time, stalled bool) (verdict Storing, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.judged) > standstill && now.After(s.last) {
		s.last = now // this process was suspended, not the disk
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

// verdict returns the last verdict.
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

// keeper watches the disk of the data directory.
type keeper struct {
	*member
	*view
	storage   *storage
	disk      atomic.Pointer[datadir.Disk]
	threads   func(n int) int           // store.Threads
	traces    func() string             // what is stored with a test write of what the others have stored
	stepping  atomic.Bool               // leadership is being handed over because this member cannot write
	stalledAt atomic.Pointer[time.Time] // when a leader last reported that this replica does not advance; nil: it does
}

func newKeeper(m *member, vw *view, traces func() string) *keeper {
	k := &keeper{
		member:  m,
		view:    vw,
		storage: newStorage(time.Now()),
		traces:  traces,
		threads: store.Threads,
	}
	k.storage.wrote(m.Incarnation.Begun)
	k.disk.Store(&datadir.Disk{})
	k.look()
	return k
}

// Storing returns whether this member can write to its disk, at most half a second old.
func (k *keeper) Storing() Storing { return k.storage.verdict() }

// useDisk checks the disk and writes to it periodically. It may hang in a system call as long as the disk does, so
// nothing may wait for it.
func (k *keeper) useDisk(ctx context.Context) {
	dir := k.Store.Dir()
	var at ground
	tries, number := 0, max(k.Incarnation.Stored, k.Incarnation.Begun)
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
			number = nextTrial(number, began)
			if tries++; err == nil {
				err = k.try(dir, number, tries%roomEvery == 0)
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

func (k *keeper) try(dir string, number uint64, room bool) error {
	wrote, err := tryDisk(dir, number, k.traces())
	if wrote {
		k.storage.wrote(number)
	}
	if err == nil && k.threads(1) < 1 {
		return errNoThreads // before Go's runtime needs one, and ends the process
	}
	if err == nil && (room || k.Storing().Fault == faultFull) {
		err = tryRoom(dir)
	}
	return err
}

// lastTrial makes the last test write of a process that ends in order, and returns its number; 0: it cannot be written.
// It waits for the disk for 0.3 s.
func (k *keeper) lastTrial() uint64 {
	if !k.Storing().OK {
		return 0
	}
	done := make(chan uint64, 1)
	go func() {
		number := nextTrial(k.storage.stored(), time.Now())
		if wrote, err := tryDisk(k.Store.Dir(), number, k.traces()); !wrote || err != nil {
			number = 0
		}
		done <- number
	}()
	select {
	case number := <-done:
		return number
	case <-time.After(trialWithin):
		return 0
	}
}

// run judges the disk by the results of useDisk, logs changes, and hands leadership over while this member cannot
// write.
func (k *keeper) run(ctx context.Context) {
	ended := make(chan struct{})
	go func() { defer close(ended); k.useDisk(ctx) }()
	defer func() {
		select {
		case <-ended:
		case <-time.After(time.Second): // the disk hangs
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
			k.log.Info("this member can store again")
			k.Wake()
		case changed:
			k.log.Warn("this member cannot store: leadership and vote move to other members, if there are any",
				"reason", verdict.Fault)
			k.Wake()
		}
		if verdict.own() != "" && k.stepping.CompareAndSwap(false, true) {
			go func() { // the disk may hang it
				defer k.stepping.Store(false)
				k.stepDown(ctx)
			}()
		}
	}
}

// toldStalled reports whether a leader has reported in the last seconds that this replica does not advance.
func (k *keeper) toldStalled(now time.Time) bool {
	at := k.stalledAt.Load()
	return at != nil && now.Sub(*at) < 3*probeEvery
}

// Lively reports, for a watchdog, whether the loops of this member run. A member that waits for its disk counts as
// alive, because a restart would not help.
func (k *keeper) Lively() bool {
	return time.Since(k.storage.judgedAt()) < stuck && (k.Storing().own() != "" || time.Since(k.Store.Beat()) < stuck)
}

// Sentence summarises this member's state for the status line of a service manager.
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

// stepDown hands leadership to another voter. It needs neither the disk nor the leader's loop, which may wait for the
// disk.
func (k *keeper) stepDown(ctx context.Context) {
	if !k.Store.Leading() {
		return
	}
	to := k.successor()
	if to == 0 {
		return
	}
	k.log.Warn("leadership is handed over because this member cannot write to its disk", "to", to)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := k.Store.StepDown(ctx, to); err != nil && ctx.Err() == nil {
		k.log.Warn("leadership could not be handed over", "to", to, "err", err)
	}
}

// Disk returns the result of the last check.
func (k *keeper) Disk() datadir.Disk { return *k.disk.Load() }

// look checks the disk space once and logs changes.
func (k *keeper) look() {
	before := k.Disk()
	free, total, err := datadir.StatDisk(k.Store.Dir())
	if err != nil {
		k.log.Debug("the disk space could not be read", "err", err)
		return
	}
	before.Reserve = k.DiskReserve.Of(total)
	now := before.Next(free, total)
	k.disk.Store(&now)
	switch {
	case now.Low && !before.Low:
		k.log.Warn("low on disk space: leadership and vote move to other members, if there are any; make room or add disk",
			"free", now.Free, "reserve", now.Reserve)
		k.Wake()
	case !now.Low && before.Low:
		k.log.Info("enough disk space again", "free", now.Free, "reserve", now.Reserve)
		k.Wake()
	}
}
