package handlers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// cheapBytes bounds the arguments that are checked before authentication. Checking so little costs nothing.
const cheapBytes = 1024

const (
	bodyWithin         = 30 * time.Second // for an authenticated caller; equal to the listener's read timeout
	strangerBodyWithin = 10 * time.Second
	dropWithin         = 500 * time.Millisecond // to drain the body: closing on unread data would lose the answer
	writeWithin        = 10 * time.Second       // a caller that reads nothing of its answer for this long is disconnected
)

func retryAfter(d time.Duration) string { return strconv.Itoa(max(1, int(d.Seconds()))) }

// announcesBody reports whether the request has, or announces, a body.
func announcesBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// needsBody reports whether the body must be read before the answer. Bodies of GET, HEAD and most DELETEs have no
// meaning and are not read, except for blocking queries: only a request that was read completely may wait.
func (q *Request) needsBody(rt *Route) bool {
	if !announcesBody(q.Request) || rt.Whole {
		return false
	}
	switch q.Method {
	case http.MethodGet, http.MethodHead:
		return q.Block != nil
	case http.MethodDelete:
		return rt.HasBody // other DELETEs have everything in the path
	}
	return true
}

// dropBody discards the body: the connection is closed after the answer, without reading the rest.
func dropBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(dropWithin))
	}
}

func dropBodyIfAny(w http.ResponseWriter, r *http.Request) {
	if announcesBody(r) {
		dropBody(w, r)
	}
}

var errNoRoom = errors.New("no room for the body")

// rationed reads a body and counts its bytes against a ration.
type rationed struct {
	io.Reader
	ration *ration
}

// maxValues bounds the values in a JSON body: decoded, many small values take many times the body's length.
const maxValues = 10_000

// CheckValues rejects a body with too many values. It scans the bytes without decoding them.
func CheckValues(data []byte) error {
	commas, text := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			text = !text
		case text && c == '\\':
			i++
		case !text && c == ',':
			commas++
		}
	}
	if commas >= maxValues {
		return Fail(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body must have at most %d values", maxValues))
	}
	return nil
}

func (r *rationed) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 && !r.ration.take(n) {
		return 0, errNoRoom
	}
	return n, err
}

// receive reads the body with a deadline, up to 1 MiB and within the caller's ration.
func (q *Request) receive(r *ration) ([]byte, error) {
	if q.stranger {
		_ = http.NewResponseController(q.W).SetReadDeadline(time.Now().Add(strangerBodyWithin))
	}
	data, err := io.ReadAll(&rationed{http.MaxBytesReader(q.W, q.Request.Body, BodyLimit), r})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, Fail(http.StatusRequestEntityTooLarge, "the body must not be larger than 1 MiB")
	case errors.Is(err, errNoRoom):
		return nil, err
	case err != nil:
		dropBody(q.W, q.Request)
		return nil, Fail(http.StatusBadRequest, "the body could not be read")
	}
	return data, CheckValues(data)
}
