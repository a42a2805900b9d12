package handlers

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
)

// gzipFrom is the size from which an answer is worth compressing, the original's threshold.
const gzipFrom = 1400

// compressors are kept: one costs more to make than an answer to compress.
var compressors = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	return z
}}

// consulJSON writes v compactly, or with four spaces and a newline when the query says `pretty`, compressed when the
// caller takes that and it is large.
func (q *request) consulJSON(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, pretty := q.URL.Query()["pretty"]; pretty {
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "    "); err != nil {
			return err
		}
		data = append(b.Bytes(), '\n')
	}
	h := q.w.Header()
	h.Set("Content-Type", "application/json")
	if len(data) >= gzipFrom && acceptsGzip(q.Request) {
		var b bytes.Buffer
		z := compressors.Get().(*gzip.Writer)
		defer compressors.Put(z)
		z.Reset(&b)
		if _, err := z.Write(data); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		h.Set("Content-Encoding", "gzip")
		data = b.Bytes()
	}
	q.w.WriteHeader(http.StatusOK)
	_, err = q.w.Write(data)
	return err
}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
		weight = strings.ReplaceAll(weight, " ", "")
		if name == "gzip" || name == "*" {
			return weight != "q=0" && weight != "q=0.0" && weight != "q=0.00" && weight != "q=0.000"
		}
	}
	return false
}
