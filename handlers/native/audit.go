package native

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"muster/handlers"
	"muster/store"
)

const (
	auditLimit    = 100
	maxAuditLimit = 1000
	maxAuditText  = 256
)

type auditPage struct {
	Entries []store.AuditRow `json:"entries"`
	Next    string           `json:"next,omitempty"` // value of after for the next page
}

// audit lists audit rows, a page at a time.
func (s *service) audit(q *handlers.Request) error {
	f, err := parseAuditFilter(q.URL.Query())
	if err != nil {
		return err
	}
	if f.NodeID, err = s.membership.Filter(q, "node"); err != nil {
		return err
	}
	limit := f.Limit
	f.Limit++ // whether there is another page
	list, err := s.Audit.List(q.Context(), q.Consistency(), f)
	if err != nil {
		return err
	}
	page := auditPage{Entries: list}
	if len(list) > limit {
		page.Entries = list[:limit]
		page.Next = list[limit-1].Position().String()
	}
	return q.Result(http.StatusOK, page)
}

func parseAuditFilter(query url.Values) (f store.AuditFilter, err error) {
	bad := func(text string) (store.AuditFilter, error) { return f, handlers.Fail(http.StatusBadRequest, text) }
	for _, p := range []struct {
		name string
		into *time.Time
	}{{"since", &f.Since}, {"until", &f.Until}} {
		if v := query.Get(p.name); v != "" {
			if *p.into, err = time.Parse(time.RFC3339, v); err != nil {
				return bad(p.name + " must be a time as in RFC 3339, such as 2030-01-02T15:04:05Z")
			}
		}
	}
	for _, p := range []struct {
		name string
		into *string
	}{{"actor", &f.Actor}, {"action", &f.Action}, {"object", &f.Object}} {
		if *p.into = query.Get(p.name); len(*p.into) > maxAuditText {
			return bad(p.name + " must have at most 256 bytes")
		}
	}
	if v := query.Get("after"); v != "" {
		if f.After, f.HasAfter = store.ParsePosition(v); !f.HasAfter {
			return bad("after must be the id of an entry, such as 12.1, or a revision")
		}
	}
	f.Limit = auditLimit
	if v := query.Get("limit"); v != "" {
		if f.Limit, err = strconv.Atoi(v); err != nil || f.Limit < 1 || f.Limit > maxAuditLimit {
			return bad("limit must be a whole number between 1 and 1000")
		}
	}
	switch query.Get("order") {
	case "", "asc":
	case "desc":
		f.Descending = true
	default:
		return bad("order must be asc or desc")
	}
	return f, nil
}
