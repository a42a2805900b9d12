package handlers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// cheapBytes bounds what is checked of a stranger's arguments: checks of so little cost nothing worth protecting.
const cheapBytes = 1024

const (
	bodyWithin         = 30 * time.Second // of a caller that is known; the listener's read time-out is the same
	strangerBodyWithin = 10 * time.Second
	dropWithin         = 500 * time.Millisecond // what comes of a body after its answer; closing on it would lose that
	writeWithin        = 10 * time.Second       // a caller that takes nothing of its answer for this long is cut
)

func retryAfter(d time.Duration) string { return strconv.Itoa(max(1, int(d.Seconds()))) }

// announcesBody reports whether the request has a body, or says so.
func announcesBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// needsBody reports whether the body of a request has to be there before it is answered. Nobody waits for those of GET
// and HEAD, and of most DELETEs, which mean nothing, except where the request is to be held back for long: a place
// there is for requests that were read to their end.
func (q *Request) needsBody(rt *Route) bool {
	if !announcesBody(q.Request) || rt.Whole {
		return false
	}
	switch q.Method {
	case http.MethodGet, http.MethodHead:
		return q.Block != nil
	case http.MethodDelete:
		return rt.HasBody // the others say all in the path
	}
	return true
}

// dropBody answers without the body: the connection cannot be used again, and its end is not waited for.
func dropBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(dropWithin))
	}
}

var errNoRoom = errors.New("no room for the body")

// rationed counts what is read of a body.
type rationed struct {
	io.Reader
	ration *ration
}

// maxValues bounds the values in a body of JSON: what is made of it takes many times its length when it has many small
// ones.
const maxValues = 10_000

// CheckValues refuses a body with too many values. It looks at the bytes alone and makes nothing of them.
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

// receive reads the body under a deadline, and at most so much of it as its caller may send.
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
