package ella

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"muster/handlers"
	"muster/internal/naming"
	"muster/store"
)

// memberText reads {id} of a members path. Released official clients escape the question mark
// (`/members/2%3Fforce=true`); the part after it is parsed as the query.
func memberText(q *handlers.Request) (text string, query url.Values, err error) {
	query = q.URL.Query()
	text, err = url.PathUnescape(q.Vars()["id"])
	if err != nil {
		return "", nil, handlers.Fail(http.StatusBadRequest, "Invalid node ID")
	}
	if path, glued, ok := strings.Cut(text, "?"); ok {
		text = path
		if extra, err := url.ParseQuery(glued); err == nil {
			for k, v := range extra {
				query[k] = append(query[k], v...)
			}
		}
	}
	return text, query, nil
}

// lookUp finds the member of a request by number, UUID, name, address or host name. As in the original, 0, negative
// numbers and texts that name no member are invalid for drain and resume (400) and unknown elsewhere (404).
func (s *service) lookUp(q *handlers.Request, positive bool) (*store.Member, url.Values, error) {
	text, query, err := memberText(q)
	if err != nil {
		return nil, nil, err
	}
	id, number := naming.Number(text)
	if !number {
		m, err := s.membership.Resolve(q, text, naming.Resolve)
		if errors.Is(err, naming.ErrNone) {
			err = handlers.Fail(http.StatusBadRequest, "Invalid node ID")
		}
		return m, query, err
	}
	if positive && id < 1 {
		return nil, nil, handlers.Fail(http.StatusBadRequest, "Invalid node ID")
	}
	m, err := s.Members.Get(q.Context(), q.Consistency(), uint64(max(id, 0)))
	if err == nil && m == nil {
		err = handlers.Fail(http.StatusNotFound, "Cluster member not found")
	}
	return m, query, err
}
