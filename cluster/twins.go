package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/store"
)

const (
	pathHello = "/internal/hello"

	helloLimit  = 600 * time.Millisecond // for all members together, before this one starts Raft
	helloLinger = 150 * time.Millisecond // after the first answer
	helloMost   = 16                     // maximum number of members to ask
	twinLimit   = 400 * time.Millisecond // to check a former address of a member
)

// Incarnation identifies one run of a member's process. The process of a copied data directory has the same identity
// but another incarnation, which distinguishes the two.
type Incarnation struct {
	ID        string    `json:"incarnation,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	Stored    uint64    `json:"stored,omitempty"` // number of the last test write in the data directory at the start
}

// NewIncarnation returns the incarnation of this process with a data directory, before anything is written there.
func NewIncarnation(dir string) Incarnation {
	id := make([]byte, 12)
	_, _ = rand.Read(id) // never fails
	return Incarnation{ID: hex.EncodeToString(id), StartedAt: time.Now().UTC().Truncate(time.Millisecond),
		Stored: readTrace(dir)}
}

// hello is a member's first message after its start.
type hello struct {
	Incarnation
	NodeID      uint64          `json:"nodeId,omitempty"`
	RaftAddress string          `json:"raftAddress"`
	Places      []datadir.Place `json:"peers,omitempty"` // in the answer: addresses of members
}

// TwinError means that another process has this member's identity, or had it with a newer data directory.
type TwinError struct {
	NodeID  uint64    `json:"nodeId"`
	Address string    `json:"address"` // of the other process
	Started time.Time `json:"started"`
	Older   bool      `json:"older,omitempty"` // this data directory is older than the one that ran last
}

func (e *TwinError) Error() string {
	if e.Older {
		return fmt.Sprintf("this data directory is an older copy of that of node %d: it has forgotten what the member has "+
			"confirmed and for whom it has voted since. Start the member with its newest directory; if that is lost, run "+
			"\"muster member remove %d --force\" on another member, and join with an empty directory", e.NodeID, e.NodeID)
	}
	since := ""
	if !e.Started.IsZero() {
		since = " since " + e.Started.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("another process is node %d: it runs at %s%s. Two processes with one identity destroy a "+
		"cluster: if this data "+
		"directory is a copy, delete it and join with an empty one; if it is the one to keep, stop the other process first",
		e.NodeID, e.Address, since)
}

// Introduce announces this member's start to the others, before it starts Raft, and learns addresses from them. It
// returns a *TwinError when a process with this identity already runs, known to them or at a former address of this
// directory. It does not wait for members that do not answer in time.
func Introduce(ctx context.Context, t *transport.Transport, book *datadir.Book, d *datadir.Dir, n *datadir.Node,
	self Incarnation, before ...string) error {
	ctx, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	body, err := json.Marshal(hello{Incarnation: self, NodeID: n.NodeID, RaftAddress: n.RaftAddress})
	if err != nil {
		return err
	}
	before = slices.DeleteFunc(slices.Clone(before), func(a string) bool { return a == n.RaftAddress || a == "" })
	known := book.Known()
	known = known[:min(len(known), helloMost)]
	answers := make(chan greeting, len(known)+len(before))
	ask := func(call func(out *hello) error) {
		go func() {
			var out hello
			err := asTwin(call(&out))
			answers <- greeting{out.Places, err}
		}()
	}
	for _, id := range known {
		ask(func(out *hello) error {
			return t.Call(ctx, http.MethodPost, id, pathHello, bytes.NewReader(body), out)
		})
	}
	for _, address := range before {
		ask(func(out *hello) error {
			return t.CallAt(ctx, http.MethodPost, n.NodeID, address, pathHello, bytes.NewReader(body), out)
		})
	}
	return hear(ctx, answers, book, d)
}

// greeting is the answer of a member to this one's start.
type greeting struct {
	places []datadir.Place
	err    error
}

// hear takes the answers, at most as many as fit into the channel, until helloLinger after the first good one or until
// ctx ends.
func hear(ctx context.Context, answers <-chan greeting, book *datadir.Book, d *datadir.Dir) error {
	var linger <-chan time.Time
	for asked := cap(answers); asked > 0; asked-- {
		select {
		case r := <-answers:
			var twin *TwinError
			if errors.As(r.err, &twin) {
				_ = d.NoteTwin(true, twin.Older, twin.Address)
				return twin
			}
			if transport.LeftOut(r.err) {
				return fmt.Errorf("another member runs and refuses this one: %w", store.ErrLeftOut)
			}
			if r.err == nil && linger == nil {
				book.Hear(r.places)
				linger = time.After(helloLinger)
			}
		case <-linger:
			asked = 1
		case <-ctx.Done():
			asked = 1
		}
	}
	d.SettleTwin()
	return nil
}

// asTwin converts an error answer into a *TwinError, if it is one.
func asTwin(err error) error {
	var status *transport.StatusError
	if !errors.As(err, &status) || status.Status != http.StatusLocked {
		return err
	}
	var twin TwinError
	if json.Unmarshal([]byte(status.Text), &twin) != nil || twin.NodeID == 0 {
		return err
	}
	return &twin
}

// twins detects second processes with a member's identity.
type twins struct {
	*member
	mu   sync.Mutex
	last map[uint64]string // accepted incarnation of each member

	traces traces
}

// serveHello answers a starting member.
func (tw *twins) serveHello(w http.ResponseWriter, r *http.Request) {
	var h hello
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&h); err != nil {
		http.Error(w, "the hello cannot be read", http.StatusBadRequest)
		return
	}
	h.NodeID = transport.MemberID(r.Context()) // a member can only introduce itself
	if twin := tw.twinOf(r.Context(), h, true); twin != nil {
		refuseTwin(w, twin)
		return
	}
	tw.Book.Met(h.NodeID, h.RaftAddress)
	out := hello{Incarnation: tw.Incarnation, RaftAddress: tw.Self.RaftAddress, Places: []datadir.Place{}}
	for _, id := range tw.knownMembers(r.Context()) {
		if list := tw.Book.Candidates(id); id != h.NodeID && len(list) > 0 && len(out.Places) < helloMost {
			out.Places = append(out.Places, datadir.Place{NodeID: id, RaftAddress: list[0]})
		}
	}
	writeJSON(w, out)
}

func refuseTwin(w http.ResponseWriter, twin *TwinError) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusLocked)
	_ = json.NewEncoder(w).Encode(twin)
}

// twinOf returns another process with the identity of h's member, or nil. With starting, h does not serve yet, so its
// own address is not checked.
func (tw *twins) twinOf(ctx context.Context, h hello, starting bool) *TwinError {
	if h.ID == "" { // an older version without incarnations
		return nil
	}
	if h.NodeID == tw.Store.NodeID() {
		if h.ID == tw.Incarnation.ID {
			return nil
		}
		tw.refused(h.RaftAddress)
		return &TwinError{NodeID: h.NodeID, Address: tw.Self.RaftAddress, Started: tw.Incarnation.StartedAt}
	}
	tw.mu.Lock()
	last := tw.last[h.NodeID]
	tw.mu.Unlock()
	if last == h.ID {
		return nil
	}
	if twin := tw.lookForTwin(ctx, h, starting); twin != nil {
		tw.log.Warn("a second process with the identity of a member was refused", "node", h.NodeID, "at", h.RaftAddress,
			"runs", twin.Address)
		return twin
	}
	if tw.traces.outdates(h) {
		tw.log.Warn("a member was refused because its data directory is an older copy: remove the member, and let the "+
			"machine join with an empty directory", "node", h.NodeID, "at", h.RaftAddress)
		return &TwinError{NodeID: h.NodeID, Address: h.RaftAddress, Older: true}
	}
	tw.mu.Lock()
	tw.last[h.NodeID] = h.ID
	tw.mu.Unlock()
	return nil
}

// lookForTwin asks for the incarnation at every known address of the member.
func (tw *twins) lookForTwin(ctx context.Context, h hello, starting bool) *TwinError {
	ctx, cancel := context.WithTimeout(ctx, twinLimit)
	defer cancel()
	places := tw.Book.Candidates(h.NodeID)
	if !starting && !slices.Contains(places, h.RaftAddress) {
		places = append(places, h.RaftAddress)
	}
	if starting {
		places = slices.DeleteFunc(places, func(a string) bool { return a == h.RaftAddress })
	}
	path := transport.PathProbe + "?" + url.Values{"twin": {h.ID}, "at": {h.RaftAddress}}.Encode()
	found := make(chan *TwinError, len(places))
	for _, address := range places {
		go func() {
			var r Report
			err := tw.Transport.CallAt(ctx, http.MethodGet, h.NodeID, address, path, nil, &r)
			if err != nil || r.ID == h.ID {
				found <- nil
				return
			}
			found <- &TwinError{NodeID: h.NodeID, Address: address, Started: r.StartedAt}
		}()
	}
	for range places {
		if twin := <-found; twin != nil {
			return twin
		}
	}
	return nil
}

// hearTwin reads from a probe that another member rejected a second process with this member's identity.
func (tw *twins) hearTwin(q url.Values) {
	if id := q.Get("twin"); id != "" && id != tw.Incarnation.ID {
		tw.refused(q.Get("at"))
	}
}

func (tw *twins) refused(at string) {
	tw.log.Warn("a second process with this member's identity was refused: a copy of this data directory was started; "+
		"delete the copy",
		"at", at)
	if err := tw.Dir.NoteTwin(false, false, at); err != nil {
		tw.log.Warn("the second process could not be recorded", "err", err)
	}
}

// A member whose data directory is replaced by an older copy has forgotten entries that it confirmed and votes that it
// gave. So each test write of its disk has a number, the others keep the last number, and a start with a lower one is
// rejected.

const (
	traceSilent = 3 * probeEvery  // without an answer for this long the leader tells the others of a member
	traceNews   = 10 * probeEvery // for this long after its start it tells of a member, too
	traceMost   = 16              // traces in one probe
)

// trace is the number of the last known test write of one run of a member.
type trace struct {
	incarnation string
	stored      uint64
	at, since   time.Time // when it was last heard of, and when this run was first
}

// traces remembers the newest trace of each member. It is empty after a start.
type traces struct {
	mu sync.Mutex
	of map[uint64]trace
}

// saw records the report of a member. Zero is the report of an older version.
func (x *traces) saw(id uint64, incarnation string, stored uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now, last := time.Now(), x.of[id]
	if last.incarnation != incarnation {
		last = trace{incarnation: incarnation, since: now}
	}
	if stored == 0 || last.stored > stored {
		return
	}
	last.stored, last.at = stored, now
	if x.of == nil {
		x.of = map[uint64]trace{}
	}
	x.of[id] = last
}

// outdates reports whether a member that starts with h has stored more in an earlier run than its directory has. It
// accepts a directory without a number.
func (x *traces) outdates(h hello) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	last, known := x.of[h.NodeID]
	return known && last.incarnation != h.ID && h.Stored > 0 && h.Stored < last.stored
}

// tell lists, for a probe, this member's own trace, and those of members that have been silent for a while or have just
// started: their numbers may have begun anew.
func (x *traces) tell(own uint64, self Incarnation, stored uint64) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := []string{fmt.Sprintf("%d:%s:%d", own, self.ID, stored)}
	for id, t := range x.of {
		news := time.Since(t.at) > traceSilent || time.Since(t.since) < traceNews
		if len(list) < traceMost && id != own && news {
			list = append(list, fmt.Sprintf("%d:%s:%d", id, t.incarnation, t.stored))
		}
	}
	return strings.Join(list, ",")
}

// hear records the traces of a probe, except this member's own.
func (x *traces) hear(own uint64, text string) {
	for i, part := range strings.Split(text, ",") {
		fields := strings.Split(part, ":")
		var id, stored uint64
		if i >= traceMost || len(fields) != 3 || len(fields[1]) > 64 {
			continue
		}
		if n, _ := fmt.Sscan(fields[0]+" "+fields[2], &id, &stored); n == 2 && id != own {
			x.saw(id, fields[1], stored)
		}
	}
}

func (x *traces) forget(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.of, id)
}

// putTrace writes the number of a test write into its block.
func putTrace(block []byte, stored uint64) {
	binary.LittleEndian.PutUint64(block, stored)
	binary.LittleEndian.PutUint64(block[8:], ^stored)
}

// readTrace returns the number of the last test write in a data directory, or 0 when that is not known.
func readTrace(dir string) uint64 {
	f, err := os.Open(filepath.Join(dir, datadir.RaftDir, store.TrialFile))
	if err != nil {
		return 0
	}
	defer f.Close()
	var block [16]byte
	if _, err := f.ReadAt(block[:], 0); err != nil {
		return 0
	}
	stored := binary.LittleEndian.Uint64(block[:])
	if binary.LittleEndian.Uint64(block[8:]) != ^stored {
		return 0
	}
	return stored
}
