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

	helloLimit  = 600 * time.Millisecond // for all members together, before this one takes part in Raft
	helloLinger = 150 * time.Millisecond // after the first answer
	helloMost   = 16                     // members that are asked
	twinLimit   = 400 * time.Millisecond // for a look at where a member was
)

// Incarnation is one start of a member. A copied disk has the identity of the member it was copied from, and another
// incarnation: that is how the two are told apart.
type Incarnation struct {
	ID        string    `json:"incarnation,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
}

// NewIncarnation makes the one of this process.
func NewIncarnation() Incarnation {
	id := make([]byte, 12)
	_, _ = rand.Read(id) // never fails
	return Incarnation{ID: hex.EncodeToString(id), StartedAt: time.Now().UTC().Truncate(time.Millisecond)}
}

// hello is what a member says of itself before it takes part in anything.
type hello struct {
	Incarnation
	NodeID      uint64          `json:"nodeId,omitempty"`
	RaftAddress string          `json:"raftAddress"`
	Places      []datadir.Place `json:"peers,omitempty"` // in the answer: where others are
}

// TwinError says that another process has this member's identity.
type TwinError struct {
	NodeID  uint64    `json:"nodeId"`
	Address string    `json:"address"` // of the other process
	Started time.Time `json:"started"`
}

func (e *TwinError) Error() string {
	since := ""
	if !e.Started.IsZero() {
		since = " since " + e.Started.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("another process is node %d: it runs at %s%s. Two processes with one identity destroy a "+
		"cluster: if this data "+
		"directory is a copy, delete it and join with an empty one; if it is the one to keep, stop the other process first",
		e.NodeID, e.Address, since)
}

// Introduce tells the other members that this one is starting, before it takes part in Raft, and learns from them where
// others are. It returns a *TwinError when a process with this identity runs already: one that they see, or one at an
// address that this directory had before. Members that do not answer in time are not waited for.
func Introduce(ctx context.Context, t *transport.Transport, book *datadir.Book, d *datadir.Dir, n *datadir.Node,
	self Incarnation, before ...string) error {
	ctx, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	body, err := json.Marshal(hello{Incarnation: self, NodeID: n.NodeID, RaftAddress: n.RaftAddress})
	if err != nil {
		return err
	}
	type result struct {
		places []datadir.Place
		err    error
	}
	known := book.Known()
	known = known[:min(len(known), helloMost)]
	results := make(chan result, len(known)+len(before))
	asked := 0
	ask := func(call func(out *hello) error) {
		asked++
		go func() {
			var out hello
			err := call(&out)
			results <- result{out.Places, err}
		}()
	}
	for _, id := range known {
		ask(func(out *hello) error {
			return asTwin(t.Call(ctx, http.MethodPost, id, pathHello, bytes.NewReader(body), out))
		})
	}
	for _, address := range before {
		if address != n.RaftAddress && address != "" {
			ask(func(out *hello) error {
				return asTwin(t.CallAt(ctx, http.MethodPost, n.NodeID, address, pathHello, bytes.NewReader(body), out))
			})
		}
	}
	var linger <-chan time.Time
	for ; asked > 0; asked-- {
		select {
		case r := <-results:
			var twin *TwinError
			if errors.As(r.err, &twin) {
				_ = d.NoteTwin(true, twin.Address)
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

// asTwin makes a TwinError of the answer that means one.
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

// twins tells a second process with a member's identity from that member.
type twins struct {
	*member
	mu   sync.Mutex
	last map[uint64]string // which incarnation of each member was let in
}

// serveHello answers a member that is starting.
func (tw *twins) serveHello(w http.ResponseWriter, r *http.Request) {
	var h hello
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&h); err != nil {
		http.Error(w, "the greeting cannot be read", http.StatusBadRequest)
		return
	}
	h.NodeID = transport.MemberID(r.Context()) // a member speaks for itself only
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

// twinOf returns another process that has the identity of h's member; nil when nobody finds one. With starting, h does
// not serve yet, so its own address is not asked.
func (tw *twins) twinOf(ctx context.Context, h hello, starting bool) *TwinError {
	if h.ID == "" { // a muster that is older than incarnations
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
	tw.mu.Lock()
	tw.last[h.NodeID] = h.ID
	tw.mu.Unlock()
	return nil
}

// lookForTwin asks at every place where the member is known to be for its incarnation.
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

// hearTwin takes another member's word, in a probe, that a second process with this member's identity was refused.
func (tw *twins) hearTwin(q url.Values) {
	if id := q.Get("twin"); id != "" && id != tw.Incarnation.ID {
		tw.refused(q.Get("at"))
	}
}

func (tw *twins) refused(at string) {
	tw.log.Warn("a second process with this member's identity was refused: a copy of this data directory was started; "+
		"delete the copy",
		"at", at)
	if err := tw.Dir.NoteTwin(false, at); err != nil {
		tw.log.Warn("the second process could not be noted", "err", err)
	}
}
