package faults

import (
	"encoding/json"
	"os"
	"sync"
	"time"
)

// op is one request in the record. Times are nanoseconds since the record began.
type op struct {
	Client  int    `json:"client"`
	Kind    string `json:"kind"` // put, get, delete, mint, tokens, join, remove, members
	Key     string `json:"key,omitempty"`
	Value   string `json:"value,omitempty"`
	Through string `json:"through"`
	Call    int64  `json:"call"`
	Return  int64  `json:"return"`
	Verdict string `json:"verdict"`
	Status  int    `json:"status,omitempty"`
	Text    string `json:"text,omitempty"` // of what is not 2xx

	Got     string   `json:"got,omitempty"`     // what a get has read; empty: nothing there
	Version int      `json:"version,omitempty"` // of a put or get
	ID      uint64   `json:"id,omitempty"`      // of a member
	IDs     []uint64 `json:"ids,omitempty"`     // of a list
}

func (o *op) is(v verdict) bool { return o.Verdict == v.String() }

// open reports whether it may have been carried out: nobody knows, or the answer is one that says nothing.
func (o *op) open() bool { return o.is(unknown) || o.is(strange) }

// recorder is the record of all requests, in the order of their ends.
type recorder struct {
	begin time.Time
	mu    sync.Mutex
	ops   []*op
	acks  []time.Duration // of writes
}

func newRecorder() *recorder { return &recorder{begin: time.Now()} }

func (r *recorder) now() int64 { return int64(time.Since(r.begin)) }

func (r *recorder) add(o *op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, o)
	if o.is(done) && (o.Kind == "put" || o.Kind == "mint" || o.Kind == "delete") {
		r.acks = append(r.acks, time.Duration(o.Return))
	}
}

// gap is the longest time without an acknowledged write in a stretch of the campaign.
func (r *recorder) gap(from, to time.Duration) (longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := from
	for _, at := range r.acks {
		if at < from {
			continue
		}
		if at > to {
			break
		}
		longest, last = max(longest, at-last), at
	}
	return max(longest, to-last)
}

// save writes the record as one JSON object a line.
func save(name string, ops []*op) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	out := json.NewEncoder(f)
	for _, o := range ops {
		if err := out.Encode(o); err != nil {
			return err
		}
	}
	return nil
}
