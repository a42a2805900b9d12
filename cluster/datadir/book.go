package datadir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster/internal/addr"
)

const (
	bookFile  = "peers.json" // last known addresses of members
	maxInBook = 64           // members in that file
	bookRest  = 200 * time.Millisecond
	tableWait = time.Second // for a query of the members table
)

// Book knows the addresses of members. Changing the members table takes a quorum, and finding a quorum may take
// addresses that the table lacks. So the book also has the addresses of the command line and those learned by
// authenticated contact.
type Book struct {
	dir   *Dir // nil: nothing is kept
	self  uint64
	seeds []Place
	given []Place
	log   *slog.Logger
	table atomic.Pointer[func(ctx context.Context, nodeID uint64) (string, bool)]

	mu     sync.Mutex
	recent map[uint64]string // where this process has reached a member, or what the member has announced
	kept   map[uint64]entry  // including those of earlier processes
	heard  map[uint64]string // from other members
	writer *time.Timer       // not nil while kept must be written
}

type entry struct {
	NodeID      uint64    `json:"nodeId"`
	RaftAddress string    `json:"raftAddress"`
	Seen        time.Time `json:"seen"`
}

// NewBook returns the book of the member n. given are addresses from the operator. A book file that cannot be read is
// logged and replaced.
func NewBook(dir *Dir, n *Node, given []Place, log *slog.Logger) *Book {
	b := &Book{
		dir:    dir,
		self:   n.NodeID,
		seeds:  n.Others,
		given:  given,
		log:    log,
		recent: map[uint64]string{},
		kept:   map[uint64]entry{},
		heard:  map[uint64]string{},
	}
	if dir == nil {
		return b
	}
	list, err := dir.readBook()
	if err != nil {
		log.Warn("the file with the last known addresses of members cannot be read", "err", err)
	}
	for _, e := range list {
		b.kept[e.NodeID] = e
	}
	return b
}

func (d *Dir) readBook() (list []entry, err error) {
	data, err := d.read(bookFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	return list, err
}

// KeepPlaces records addresses of members in a directory that no process uses, for its next start.
func (d *Dir) KeepPlaces(given []Place, now time.Time) error {
	list, _ := d.readBook() // a damaged one is replaced
	for _, p := range given {
		list = slices.DeleteFunc(list, func(e entry) bool { return e.NodeID == p.NodeID })
		list = append(list, entry{p.NodeID, p.RaftAddress, now})
	}
	return d.writeBook(list)
}

func (d *Dir) writeBook(list []entry) error {
	slices.SortFunc(list, func(a, b entry) int { return int(int64(a.NodeID) - int64(b.NodeID)) })
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return d.write(bookFile, append(data, '\n'), 0o600)
}

// UseTable makes the book query the members table from now on.
func (b *Book) UseTable(find func(ctx context.Context, nodeID uint64) (string, bool)) {
	b.table.Store(&find)
}

// Candidates lists possible addresses of a member, the likeliest first. It may block for tableWait.
func (b *Book) Candidates(nodeID uint64) (list []string) {
	add := func(a string) {
		if a != "" && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	b.mu.Lock()
	add(b.recent[nodeID])
	kept, heard := b.kept[nodeID].RaftAddress, b.heard[nodeID]
	b.mu.Unlock()
	for _, p := range b.given {
		if p.NodeID == nodeID {
			add(p.RaftAddress)
		}
	}
	if find := b.table.Load(); find != nil {
		ctx, cancel := context.WithTimeout(context.Background(), tableWait)
		defer cancel()
		if a, ok := (*find)(ctx, nodeID); ok {
			add(a)
		}
	}
	add(heard)
	add(kept)
	for _, p := range b.seeds {
		if p.NodeID == nodeID {
			add(p.RaftAddress)
		}
	}
	return list
}

// At returns the address at which this process last reached a member, or that the member last announced; empty when
// unknown.
func (b *Book) At(nodeID uint64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.recent[nodeID]
}

// Known lists the members in the book, without the members table.
func (b *Book) Known() (list []uint64) {
	add := func(id uint64) {
		if id != b.self && !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	for _, p := range b.given {
		add(p.NodeID)
	}
	b.mu.Lock()
	for id := range b.kept {
		add(id)
	}
	for id := range b.heard {
		add(id)
	}
	b.mu.Unlock()
	for _, p := range b.seeds {
		add(p.NodeID)
	}
	return list
}

// Met records an address at which a member was reached, or that it has announced over an authenticated connection.
func (b *Book) Met(nodeID uint64, address string) {
	if nodeID == b.self || addr.Check(address) != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recent[nodeID] = address
	old, known := b.kept[nodeID]
	if b.dir == nil || known && old.RaftAddress == address {
		return
	}
	if !known && len(b.kept) >= maxInBook {
		oldest := nodeID
		for id, e := range b.kept {
			if oldest == nodeID || e.Seen.Before(b.kept[oldest].Seen) {
				oldest = id
			}
		}
		delete(b.kept, oldest)
	}
	b.kept[nodeID] = entry{nodeID, address, time.Now().UTC().Truncate(time.Second)}
	if b.writer == nil {
		b.writer = time.AfterFunc(bookRest, b.Save)
	}
}

// Hear takes addresses from another member. They are tried but not stored: only authenticated contact is.
func (b *Book) Hear(places []Place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range places {
		if p.NodeID != b.self && addr.Check(p.RaftAddress) == nil {
			b.heard[p.NodeID] = p.RaftAddress
		}
	}
}

// Forget removes a member that was removed from the cluster.
func (b *Book) Forget(nodeID uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.recent, nodeID)
	if _, ok := b.kept[nodeID]; ok {
		delete(b.kept, nodeID)
		if b.writer == nil {
			b.writer = time.AfterFunc(bookRest, b.Save)
		}
	}
}

// Save writes the file if the book has changed.
func (b *Book) Save() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.writer == nil {
		return
	}
	b.writer.Stop()
	b.writer = nil
	list := make([]entry, 0, len(b.kept))
	for _, e := range b.kept {
		list = append(list, e)
	}
	if err := b.dir.writeBook(list); err != nil {
		b.log.Warn("the addresses of members could not be saved", "err", err)
	}
}

// ParsePlace parses ID=HOST:PORT.
func ParsePlace(s string) (p Place, err error) {
	bad := func(why string) error { return fmt.Errorf("%q is not ID=HOST:PORT: %s", s, why) }
	number, address, _ := strings.Cut(strings.TrimSpace(s), "=")
	id, err := strconv.ParseUint(number, 10, 53)
	if err != nil || id == 0 {
		return p, bad("the ID must be a member's number")
	}
	if err := addr.Check(address); err != nil {
		return p, bad(err.Error())
	}
	return Place{NodeID: id, RaftAddress: addr.Canonical(address)}, nil
}
