package native

import (
	"errors"
	"net/http"

	"muster/api"
	"muster/certs"
	"muster/handlers"
	"muster/store"
)

func (s *service) showWorkload(w *store.Workload) api.Workload {
	out := api.Workload{
		ID:        w.ID,
		Path:      w.Path,
		NodeID:    w.NodeID,
		User:      w.User,
		Group:     w.Group,
		Unit:      w.Unit,
		Hosts:     w.Hosts,
		CreatedBy: w.CreatedBy,
		CreatedAt: api.Time(w.CreatedAt),
	}
	if id, err := certs.WorkloadID(s.ClusterID, w.Path); err == nil {
		out.SPIFFEID = id.String()
	}
	return out
}

// createWorkload registers a workload: 201 for a new registration, 200 for an existing one.
func (s *service) createWorkload(q *handlers.Request) error {
	f, err := handlers.ParseFields(q.Content)
	if err != nil {
		return err
	}
	w := store.Workload{
		Path:   f.Text("path", true, 1, store.MaxSize("workloads", "path")),
		NodeID: uint64(f.Integer("nodeId", false, 1, certs.MaxNodeID)),
		User:   f.Text("user", false, 1, store.MaxSize("workloads", "unix_user")),
		Group:  f.Text("group", false, 1, store.MaxSize("workloads", "unix_group")),
		Unit:   f.Text("unit", false, 1, store.MaxSize("workloads", "systemd_unit")),
		Hosts:  f.Texts("hosts", false),
	}
	if err := f.End(); err != nil {
		return err
	}
	w, created, err := s.Workloads.Create(q.Context(), q.Actor, s.ClusterID, w)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return q.Result(status, s.showWorkload(&w))
}

func (s *service) listWorkloads(q *handlers.Request) error {
	list, err := s.Workloads.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	out := make([]api.Workload, len(list))
	for i := range list {
		out[i] = s.showWorkload(&list[i])
	}
	return q.Result(http.StatusOK, out)
}

func (s *service) getWorkload(q *handlers.Request) error {
	w, err := s.Workloads.Get(q.Context(), q.Consistency(), q.Vars()["id"])
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, s.showWorkload(&w))
}

func (s *service) deleteWorkload(q *handlers.Request) error {
	if err := s.Workloads.Delete(q.Context(), q.Actor, q.Vars()["id"]); err != nil {
		return err
	}
	return q.Result(http.StatusOK, handlers.Message{Message: "Workload deleted"})
}

// trustBundle publishes the trust bundle that verifies this cluster's workload identities (SPIFFE Federation, section
// 5.1). Every member serves it, with or without a leader.
func (s *service) trustBundle(q *handlers.Request) error {
	bundle, err := s.Authorities.TrustBundle(q.Context())
	if errors.Is(err, store.ErrNoWorkloadCA) {
		return handlers.Later(err.Error())
	}
	if err != nil {
		return err
	}
	text, err := certs.EncodeBundle(bundle)
	if err != nil {
		return err
	}
	q.W.Header().Set("Content-Type", "application/json")
	_, err = q.W.Write(text)
	return err
}
