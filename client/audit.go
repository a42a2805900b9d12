package client

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// AuditQuery selects entries of the audit. Zero fields select everything.
type AuditQuery struct {
	Since, Until time.Time // both inclusive, in whole seconds
	Actor        string    // the whole actor, its name, or the accessor of its token
	Action       string    // what the action begins with, such as "member."
	Object       string    // such as "node/3"
	Node         string    // the member that took the request: its number, UUID, name, address or host name
	After        string    // ID of an entry: those that follow it in the order asked for
	Limit        int       // entries of a page, 1 … 1000; 0: 100
	Descending   bool      // newest first
}

// AuditPage is a part of the audit. Next is the After of the next page, empty on the last one.
type AuditPage struct {
	Entries []Event `json:"entries"`
	Next    string  `json:"next,omitempty"`
}

// Audit reads a page of the audit: who did what, and refused attempts at what is sensitive.
func (c *Client) Audit(ctx context.Context, q AuditQuery) (AuditPage, error) {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			set(name, t.UTC().Format(time.RFC3339))
		}
	}
	set("actor", q.Actor)
	set("action", q.Action)
	set("object", q.Object)
	set("after", q.After)
	set("node", q.Node)
	if q.Limit != 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	if q.Descending {
		set("order", "desc")
	}
	return enveloped[AuditPage](ctx, c, request{method: "GET", path: "/api/v1/audit", query: query, repeat: always,
		stale: true})
}
