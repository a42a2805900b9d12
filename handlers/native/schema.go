package native

import (
	"net/http"

	"muster/handlers"
	"muster/store"
)

// getSchema serves the schema versions and the members that block a newer one.
func (s *service) getSchema(q *handlers.Request) error {
	from, err := s.confirmed(q)
	if err != nil {
		return err
	}
	state, err := s.Cluster.Schema(q.Context(), from)
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, state)
}

// confirmed returns the consistency for answers from the leader's loops: AsLeader after its leadership was confirmed,
// or Stale if the query asks for it.
func (s *service) confirmed(q *handlers.Request) (store.Consistency, error) {
	if q.Stale {
		return store.Stale, nil
	}
	return store.AsLeader, s.Replica.Confirm(q.Context())
}

const maxVersion = 64 // bytes, as in the members table

// getUpgrade serves the members' versions, the member to restart next, and the reason when none may be restarted now.
func (s *service) getUpgrade(q *handlers.Request) error {
	target := q.URL.Query().Get("version")
	if q.URL.Query().Has("version") && (target == "" || len(target) > maxVersion) {
		return handlers.Fail(http.StatusBadRequest, "version must have 1 to 64 bytes")
	}
	from, err := s.confirmed(q)
	if err != nil {
		return err
	}
	up, err := s.Cluster.Upgrade(q.Context(), from, target)
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, up)
}

// migrateSchema applies the newest schema now. The leader does so automatically when every live member supports it;
// this endpoint excludes lost members.
func (s *service) migrateSchema(q *handlers.Request) error {
	var exclude []uint64
	if len(q.Content) > 0 {
		f, err := handlers.ParseFields(q.Content)
		if err != nil {
			return err
		}
		f.Get("exclude", false, "an array of node ids", &exclude)
		if err := f.End(); err != nil {
			return err
		}
	}
	state, err := s.Cluster.Migrate(q.Context(), q.Actor, exclude)
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, state)
}
