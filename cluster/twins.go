package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
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
	Begun     uint64    `json:"begun,omitempty"`  // number of the first test write of this process; 0: not written yet
}

// NewIncarnation returns the incarnation of this process with a data directory, before anything is written there.
func NewIncarnation(d *datadir.Dir) Incarnation {
	id := make([]byte, 12)
	_, _ = rand.Read(id) // never fails
	stored, _ := readTrial(d.Path)
	if older := d.RefusedAsOlder(); older > 0 {
		stored = min(stored, older) // what it has written since does not make it newer
	}
	return Incarnation{ID: hex.EncodeToString(id), StartedAt: time.Now().UTC().Truncate(time.Millisecond), Stored: stored}
}

// hello is a member's first message after its start.
type hello struct {
	Incarnation
	NodeID      uint64          `json:"nodeId,omitempty"`
	RaftAddress string          `json:"raftAddress"`
	Places      []datadir.Place `json:"peers,omitempty"`  // in the answer: addresses of members
	Traces      string          `json:"traces,omitempty"` // as in a probe: what this directory knows of others
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
			"\"muster member remove %d --force\" on another member, and join with an empty directory. If all members were set "+
			"back and none leads, recover the cluster (docs/recovery.md)", e.NodeID, e.NodeID)
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
	_, traces := readTrial(d.Path)
	body, err := json.Marshal(hello{Incarnation: self, NodeID: n.NodeID, RaftAddress: n.RaftAddress, Traces: traces})
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
	return hear(ctx, answers, book, d, self.Stored)
}

// greeting is the answer of a member to this one's start.
type greeting struct {
	places []datadir.Place
	err    error
}

// hear takes the answers, at most as many as fit into the channel, until helloLinger after the first good one or until
// ctx ends. stored is the number of the last test write in the directory.
func hear(ctx context.Context, answers <-chan greeting, book *datadir.Book, d *datadir.Dir, stored uint64) error {
	var linger <-chan time.Time
	for asked := cap(answers); asked > 0; asked-- {
		select {
		case r := <-answers:
			var twin *TwinError
			if errors.As(r.err, &twin) {
				_ = d.NoteRefused(twin.Address, twin.Older, stored)
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
	twin chan error        // receives the *TwinError that ends this member

	traces traces
}

func newTwins(m *member) *twins {
	tw := &twins{member: m, last: map[uint64]string{}, twin: make(chan error, 1)}
	_, text := readTrial(m.Store.Dir())
	tw.traces.load(m.Store.NodeID(), text)
	return tw
}

// kept returns what this member's directory keeps of the others' traces.
func (tw *twins) kept() string {
	return tw.traces.list(tw.Store.NodeID(), traceKept, tw.Store.Servers())
}

// end ends this member because of what another one has said.
func (tw *twins) end(twin *TwinError) {
	_ = tw.Dir.NoteRefused(twin.Address, twin.Older, tw.Incarnation.Stored)
	select {
	case tw.twin <- twin:
	default:
	}
}

// heard records the traces that another member tells, and ends this member if its directory is older than the one that
// the other knows: it was started while nobody ran who did.
func (tw *twins) heard(text string) {
	if tw.traces.hear(tw.Store.NodeID(), tw.Incarnation, text) {
		tw.end(&TwinError{NodeID: tw.Store.NodeID(), Address: tw.Self.RaftAddress, Older: true})
	}
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
	tw.heard(h.Traces)
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
	tw.traces.saw(h.NodeID, h.ID, h.Begun)
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
	if err := tw.Dir.NoteTwin(at); err != nil {
		tw.log.Warn("the second process could not be recorded", "err", err)
	}
}
