package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"muster/cluster/transport"
	"muster/store"
)

// Member connects the Workload API of a member with the database and the leader.
type Member struct {
	Store     *store.Store
	Transport *transport.Transport
	Signer    *Signer // used while this member leads
}

// own reads as the leader or, on other members, from the mirror.
func own[T any](ctx context.Context, read func(context.Context, store.Consistency) (T, error)) (T, error) {
	out, err := read(ctx, store.AsLeader)
	if errors.Is(err, store.ErrNotLeader) {
		out, err = read(ctx, store.Stale)
	}
	return out, err
}

// Workloads lists the registrations for this member.
func (m *Member) Workloads(ctx context.Context) ([]store.Workload, error) {
	return own(ctx, func(ctx context.Context, c store.Consistency) ([]store.Workload, error) {
		return m.Store.Workloads.Of(ctx, c, m.Store.NodeID())
	})
}

// Bundle returns the trust bundle of this cluster.
func (m *Member) Bundle(ctx context.Context) (*spiffebundle.Bundle, error) {
	return m.Store.Authorities.TrustBundle(ctx)
}

// PeerBundles lists the trust bundles of other clusters.
func (m *Member) PeerBundles(ctx context.Context) ([]store.PeerBundle, error) {
	return own(ctx, m.Store.Peerings.Bundles)
}

// Changed returns a channel that is closed when this member's mirror is replaced, soon after each change.
func (m *Member) Changed() <-chan struct{} { return m.Store.Mirror.Changed() }

// ask repeats askOnce until it succeeds, the request is rejected for good, or ctx ends: leadership may be moving.
func ask[Q, A any](ctx context.Context, m *Member, path string, q Q,
	here func(context.Context, uint64, Q) (A, error)) (A, error) {
	for {
		a, err := askOnce(ctx, m, path, q, here)
		var refused *transport.StatusError
		if err == nil || Invalid(err) || errors.As(err, &refused) && refused.Final() {
			return a, err
		}
		select {
		case <-time.After(lookRest):
		case <-ctx.Done():
			return a, err
		}
	}
}

// askOnce sends a request to the leader, or answers it if this member leads.
func askOnce[Q, A any](ctx context.Context, m *Member, path string, q Q,
	here func(context.Context, uint64, Q) (A, error)) (a A, err error) {
	leader, err := m.Store.AwaitLeader(ctx)
	if err != nil {
		return a, err
	}
	if leader == m.Store.NodeID() {
		return here(ctx, leader, q)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	err = m.Transport.Call(ctx, http.MethodPost, leader, path, bytes.NewReader(body), &a)
	return a, err
}

// SignSVIDs requests certificates of the leader.
func (m *Member) SignSVIDs(ctx context.Context, q SVIDRequest) (SVIDAnswer, error) {
	return ask(ctx, m, PathSVIDs, q, m.Signer.SVIDs)
}

// SignJWT requests a JWT-SVID of the leader.
func (m *Member) SignJWT(ctx context.Context, q JWTRequest) (JWTAnswer, error) {
	return ask(ctx, m, PathJWT, q, m.Signer.JWT)
}

// NoteRefused makes the leader write audit rows.
func (m *Member) NoteRefused(ctx context.Context, list []store.RefusedCaller) error {
	_, err := ask(ctx, m, PathRefused, list, m.Signer.noteRefused)
	return err
}

func (s *Signer) noteRefused(ctx context.Context, nodeID uint64, list []store.RefusedCaller) (struct{}, error) {
	return struct{}{}, s.Refused(ctx, nodeID, list)
}

// Handle adds the handlers for other members. A request over the cluster listener proves its member.
func (s *Signer) Handle(mux *http.ServeMux, log *slog.Logger) {
	mux.HandleFunc("POST "+PathSVIDs, answer(log, s.SVIDs))
	mux.HandleFunc("POST "+PathJWT, answer(log, s.JWT))
	mux.HandleFunc("POST "+PathRefused, answer(log, s.noteRefused))
}

func answer[Q, A any](log *slog.Logger, f func(context.Context, uint64, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 256<<10)).Decode(&q); err != nil {
			http.Error(w, "the request cannot be read", http.StatusBadRequest)
			return
		}
		a, err := f(r.Context(), transport.MemberID(r.Context()), q)
		switch {
		case errors.Is(err, store.ErrNotLeader):
			http.Error(w, err.Error(), http.StatusMisdirectedRequest)
		case Invalid(err):
			http.Error(w, err.Error(), http.StatusBadRequest)
		case err != nil:
			log.Warn("identities of workloads", "node", transport.MemberID(r.Context()), "err", err)
			http.Error(w, "not now", http.StatusServiceUnavailable)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(a)
		}
	}
}
