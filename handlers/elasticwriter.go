package handlers

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path"
	"strings"
)

// elasticWriter shapes an answer of the enrollment family as its request asks: the media type of the Accept header,
// `pretty` and `filter_path` (reference es_enroll, section 1). Handlers write compact JSON and need not know of it.
type elasticWriter struct {
	http.ResponseWriter
	r      *http.Request
	status int
	body   bytes.Buffer
}

func newElasticWriter(w http.ResponseWriter, r *http.Request) finisher {
	return &elasticWriter{ResponseWriter: w, r: r, status: http.StatusOK}
}

// WriteHeader keeps the status until the answer is complete.
func (w *elasticWriter) WriteHeader(status int) { w.status = status }

// Write keeps a part of the body.
func (w *elasticWriter) Write(p []byte) (int, error) { return w.body.Write(p) }

// Unwrap lets http.ResponseController reach the connection.
func (w *elasticWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *elasticWriter) finish() {
	data := w.body.Bytes()
	if w.Header().Get("Content-Type") == "application/json" {
		if version, found := mediaVersion(w.r.Header.Get("Accept")); found && spoken(version) {
			w.Header().Set("Content-Type", "application/vnd.elasticsearch+json;compatible-with="+version)
		}
		data = w.shape(data)
	}
	w.Header().Del("Content-Length") // of the answer that another member gave
	w.ResponseWriter.WriteHeader(w.status)
	_, _ = w.ResponseWriter.Write(data)
}

func (w *elasticWriter) shape(data []byte) []byte {
	query := w.r.URL.Query()
	pretty, err := boolParam(query, "pretty")
	filter := query.Get("filter_path")
	if w.status >= http.StatusBadRequest {
		filter = "" // errors are always whole
	}
	if err != nil || !pretty && filter == "" {
		return data
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	tree, err := readNode(dec)
	if err != nil {
		return data
	}
	tree = filterPaths(tree, filter)
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

// print writes the node; newline is a line end with the indentation of the node itself.
func (n *node) print(b *bytes.Buffer, pretty bool, newline string) {
	if n.kind == 0 {
		writeScalar(b, n.scalar)
		return
	}
	b.WriteByte(byte(n.kind))
	inner := newline + "  "
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
	_ = enc.Encode(v) // of what a decoder has made
	b.Truncate(b.Len() - 1)
}

// filterPaths keeps what a list of paths names and drops what those with a minus in front do. Segments are separated by
// dots, * stands for any text of a segment and ** for any number of segments; arrays are passed through.
func filterPaths(n *node, list string) *node {
	var keep, drop [][]string
	for p := range strings.SplitSeq(list, ",") {
		p = strings.TrimSpace(p)
		if bare, minus := strings.CutPrefix(p, "-"); minus && bare != "" {
			drop = append(drop, strings.Split(bare, "."))
		} else if p != "" {
			keep = append(keep, strings.Split(p, "."))
		}
	}
	if len(drop) > 0 {
		n = n.without(drop)
	}
	if len(keep) > 0 {
		n = n.only(keep)
	}
	if n == nil {
		return &node{kind: '{'}
	}
	return n
}

// advance returns what is left of the paths below a key, and whether one of them ends with it.
func advance(paths [][]string, key string) (left [][]string, whole bool) {
	for _, p := range paths {
		if p[0] == "**" {
			left = append(left, p)
			if len(p) == 1 {
				return nil, true
			}
			more, end := advance([][]string{p[1:]}, key)
			left, whole = append(left, more...), whole || end
			continue
		}
		if ok, err := path.Match(p[0], key); err != nil || !ok {
			continue
		}
		if len(p) == 1 {
			whole = true
		} else {
			left = append(left, p[1:])
		}
	}
	return left, whole
}

// only keeps the members that paths name; nil when there are none.
func (n *node) only(paths [][]string) *node {
	out := &node{kind: n.kind}
	for i, item := range n.items {
		left, whole := paths, false
		if n.kind == '{' {
			left, whole = advance(paths, n.keys[i])
		}
		if !whole {
			if item.kind == 0 || len(left) == 0 {
				continue
			}
			if item = item.only(left); item == nil {
				continue
			}
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

// without drops the members that paths name, and objects that nothing is left of; nil when nothing is left of all.
func (n *node) without(paths [][]string) *node {
	if n.kind == 0 || len(n.items) == 0 {
		return n
	}
	out := &node{kind: n.kind}
	for i, item := range n.items {
		left, whole := paths, false
		if n.kind == '{' {
			left, whole = advance(paths, n.keys[i])
		}
		if whole {
			continue
		}
		if item = item.without(left); item == nil {
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
