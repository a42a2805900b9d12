package native

import (
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster/api"
	"muster/certs"
	"muster/handlers"
	"muster/store"
)

func showLease(l *store.Lease) api.Lease {
	return api.Lease{
		ID:        l.ID,
		NodeID:    l.NodeID,
		Kind:      l.Kind,
		CreatedAt: api.Time(l.CreatedAt),
		ExpiresAt: api.Time(l.ExpiresAt),
	}
}

const (
	maxLeaseID  = 128
	maxLeaseTTL = 86400 // seconds
)

func leaseID(q *handlers.Request) (string, error) {
	id, err := url.PathUnescape(q.Vars()["id"])
	if err != nil || id == "" || len(id) > maxLeaseID {
		return "", handlers.Fail(http.StatusBadRequest, "the lease id must have 1 to 128 bytes")
	}
	if !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl) {
		return "", handlers.Fail(http.StatusBadRequest, "the lease id must be text without control characters")
	}
	return id, nil
}

// putLease grants a lease or renews it: 201 for a new one, 200 for a renewal.
func (s *service) putLease(q *handlers.Request) error {
	id, err := leaseID(q)
	if err != nil {
		return err
	}
	f, err := handlers.ParseFields(q.Content)
	if err != nil {
		return err
	}
	node := f.Integer("nodeId", true, 1, certs.MaxNodeID)
	ttl := f.Integer("ttlSeconds", true, 1, maxLeaseTTL)
	kind := f.Line("kind", false, 0, 64)
	if err := f.End(); err != nil {
		return err
	}
	l, created, err := s.Leases.Put(q.Context(), q.Actor, store.Lease{ID: id, NodeID: uint64(node), Kind: kind},
		time.Duration(ttl)*time.Second)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return q.Result(status, showLease(&l))
}

func (s *service) deleteLease(q *handlers.Request) error {
	id, err := leaseID(q)
	if err != nil {
		return err
	}
	if err := s.Leases.Delete(q.Context(), q.Actor, id); err != nil {
		return err
	}
	s.Cluster.Wake() // a drain may wait for it
	return q.Result(http.StatusOK, handlers.Message{Message: "Lease released"})
}

func (s *service) listLeases(q *handlers.Request) error {
	node, err := s.membership.Filter(q, "nodeId")
	if err != nil {
		return err
	}
	leases, err := s.Leases.List(q.Context(), q.Consistency(), node)
	if err != nil {
		return err
	}
	list := make([]api.Lease, len(leases))
	for i := range leases {
		list[i] = showLease(&leases[i])
	}
	return q.Result(http.StatusOK, list)
}
