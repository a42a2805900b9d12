package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"muster/handlers"
)

// shaper transforms an answer as its request asks: media type of the Accept header, `pretty` and `filter_path`
// (reference es_enroll, section 1). Handlers just write compact JSON.
type shaper struct {
	http.ResponseWriter
	r      *http.Request
	status int
	body   bytes.Buffer
}

func newShaper(w http.ResponseWriter, r *http.Request) handlers.Finisher {
	return &shaper{ResponseWriter: w, r: r, status: http.StatusOK}
}

// WriteHeader holds the status back until the answer is complete.
func (w *shaper) WriteHeader(status int) { w.status = status }

// Write buffers a part of the body.
func (w *shaper) Write(p []byte) (int, error) { return w.body.Write(p) }

// Unwrap lets http.ResponseController reach the connection.
func (w *shaper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *shaper) Finish() {
	data := w.body.Bytes()
	if w.Header().Get("Content-Type") == "application/json" {
		if version, found := mediaVersion(w.r.Header.Get("Accept")); found && spoken(version) {
			w.Header().Set("Content-Type", "application/vnd.elasticsearch+json;compatible-with="+version)
		}
		data = w.shape(data)
	}
	w.Header().Del("Content-Length") // set by the member that answered
	w.ResponseWriter.WriteHeader(w.status)
	_, _ = w.ResponseWriter.Write(data)
}

func (w *shaper) shape(data []byte) []byte {
	query := w.r.URL.Query()
	pretty, err := boolParam(query, "pretty")
	filter, bad := parseFilterPath(query.Get("filter_path"))
	if w.status >= http.StatusBadRequest || bad != nil {
		filter = pathFilter{} // errors are never filtered
	}
	if err != nil || !pretty && len(filter.keep)+len(filter.drop) == 0 {
		return data
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	tree, err := readNode(dec)
	if err != nil {
		return data
	}
	tree = filterPaths(w.r.Context(), tree, filter)
	var b bytes.Buffer
	tree.print(&b, pretty, "\n")
	if pretty {
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// node is a JSON value that keeps the order of its members.
type node struct {
	kind   json.Delim // '{', '[' or 0
	keys   []string   // of an object
	items  []*node
	scalar any
}

func readNode(dec *json.Decoder) (*node, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return &node{scalar: token}, nil
	}
	n := &node{kind: delim}
	for dec.More() {
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			n.keys = append(n.keys, key.(string))
		}
		item, err := readNode(dec)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, item)
	}
	_, err = dec.Token()
	return n, err
}

// maxIndented bounds the levels that are indented.
const maxIndented = 32

// print writes the node; newline is a line end with the indentation of the node itself.
func (n *node) print(b *bytes.Buffer, pretty bool, newline string) {
	if n.kind == 0 {
		writeScalar(b, n.scalar)
		return
	}
	b.WriteByte(byte(n.kind))
	inner := newline
	if len(inner) <= 2*maxIndented { // deeper only in documents that older versions have stored
		inner += "  "
	}
	for i, item := range n.items {
		if i > 0 {
			b.WriteByte(',')
		}
		if pretty {
			b.WriteString(inner)
		}
		if n.kind == '{' {
			writeScalar(b, n.keys[i])
			if pretty {
				b.WriteString(" : ")
			} else {
				b.WriteByte(':')
			}
		}
		item.print(b, pretty, inner)
	}
	switch {
	case pretty && len(n.items) > 0:
		b.WriteString(newline)
	case pretty:
		b.WriteByte(' ')
	}
	b.WriteByte(byte(n.kind) + 2) // } and ] come two after { and [
}

func writeScalar(b *bytes.Buffer, v any) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // cannot fail: v comes from a decoder
	b.Truncate(b.Len() - 1)
}

// filtering applies a filter_path to an answer until its context ends.
type filtering struct {
	ctx   context.Context
	steps int
	ended bool
}

// over reports whether the context has ended; it checks every few steps.
func (f *filtering) over() bool {
	if f.steps++; f.steps%256 == 0 {
		f.ended = f.ctx.Err() != nil
	}
	return f.ended
}

// filterPaths keeps the paths that a filter_path includes and drops those that it excludes.
func filterPaths(ctx context.Context, n *node, p pathFilter) *node {
	f := &filtering{ctx: ctx}
	if len(p.drop) > 0 {
		n = f.without(n, p.drop, p.drop.begin())
	}
	if len(p.keep) > 0 && n != nil {
		n = f.only(n, p.keep, p.keep.begin())
	}
	if n == nil {
		return &node{kind: '{'}
	}
	return n
}

// only keeps the fields that paths match; nil when nothing is left.
func (f *filtering) only(n *node, paths pathPatterns, at position) *node {
	return f.filter(n, paths, at, func(item *node, below position, whole bool) *node {
		switch {
		case whole:
			return item
		case item.kind == 0 || below == nil:
			return nil
		}
		return f.only(item, paths, below)
	})
}

// without drops the fields that paths match, and objects that become empty; nil when nothing is left.
func (f *filtering) without(n *node, paths pathPatterns, at position) *node {
	if n.kind == 0 || len(n.items) == 0 || at == nil {
		return n
	}
	return f.filter(n, paths, at, func(item *node, below position, whole bool) *node {
		if whole {
			return nil
		}
		return f.without(item, paths, below)
	})
}

// filter replaces each item by the result of keep and drops it for nil; nil when nothing is left. keep gets the state
// of the patterns below the item, and whether one of them ends with it.
func (f *filtering) filter(n *node, paths pathPatterns, at position,
	keep func(item *node, below position, whole bool) *node) *node {
	out := &node{kind: n.kind}
	for i, item := range n.items {
		if f.over() {
			return nil
		}
		below, whole := at, false
		if n.kind == '{' {
			below, whole = paths.advance(at, n.keys[i])
		}
		if item = keep(item, below, whole); item == nil {
			continue
		}
		if n.kind == '{' {
			out.keys = append(out.keys, n.keys[i])
		}
		out.items = append(out.items, item)
	}
	if len(out.items) == 0 {
		return nil
	}
	return out
}
