package native

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"muster/api"
	"muster/certs"
	"muster/handlers"
	"muster/store"
)

// showCA shows the certificate authorities and what is going on with them.
func (s *service) showCA(q *handlers.Request) error {
	list, err := s.Authorities.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	var waiting []api.CAPending
	for i := range list {
		if list[i].Rotation != nil && waiting == nil && !q.Stale { // the leader alone knows
			if _, waiting, err = s.pending(q.Context()); err != nil {
				return err
			}
		}
	}
	out := make([]api.CAKind, len(list))
	for i := range list {
		out[i] = s.showCAKind(&list[i], waiting)
	}
	return q.Result(http.StatusOK, out)
}

func (s *service) showCAKind(k *store.AuthorityKind, waiting []api.CAPending) api.CAKind {
	out := api.CAKind{Kind: string(k.Kind), Generations: make([]api.CAGeneration, len(k.Generations))}
	for i, a := range k.Generations {
		out.Generations[i] = api.CAGeneration{
			Generation:  a.Generation,
			State:       a.State,
			Origin:      a.Origin,
			Fingerprint: a.Fingerprint,
			Subject:     a.Subject,
			NotBefore:   api.Time(a.NotBefore),
			NotAfter:    api.Time(a.NotAfter),
			DaysLeft:    daysLeft(a.NotAfter, s.Now()),
			CreatedAt:   api.Time(a.CreatedAt),
			Certificate: a.CertPEM,
		}
	}
	if k.Rotation != nil {
		out.Rotation = showRotation(k.Rotation, waiting)
	}
	if r := k.Removed; r != nil {
		out.RotationAdvised = fmt.Sprintf("node %d (%s), removed at %s, could read the CA keys", r.NodeID, r.Name,
			r.RemovedAt.UTC().Format(handlers.TimeFormat))
	}
	return out
}

// showRotation describes a rotation and whom it waits for.
func showRotation(r *store.CARotation, waiting []api.CAPending) *api.CARotation {
	out := &api.CARotation{
		Phase:      r.Phase,
		Old:        r.Old,
		New:        r.New,
		RolledBack: r.RolledBack,
		StartedAt:  api.Time(r.StartedAt),
		StartedBy:  r.StartedBy,
		PhaseSince: api.Time(r.PhaseAt),
		Overlap:    r.Overlap.String(),
		DropAt:     api.TimePointer(r.DropAt),
		Pending:    []api.CAPending{},
	}
	for _, p := range waiting {
		if p.Reason == "" {
			p.Reason = fmt.Sprintf("has not got a certificate of generation %d yet", r.New)
			if r.Phase == store.PhaseTrust {
				p.Reason = fmt.Sprintf("does not trust generation %d yet", r.New)
			}
		}
		out.Pending = append(out.Pending, p)
	}
	return out
}

func daysLeft(end, now time.Time) int { return int(end.Sub(now).Hours() / 24) }

// pending lists the members that have not put the present trust into effect; the reason is empty for those that answer.
func (s *service) pending(ctx context.Context) (store.Installed, []api.CAPending, error) {
	list := []api.CAPending{}
	in, why, err := s.Cluster.Installed(ctx)
	if err != nil {
		return in, nil, err
	}
	holders, err := s.Authorities.Holders(ctx, store.AsLeader)
	if err != nil {
		return in, nil, err
	}
	for _, id := range holders {
		if in.Nodes[id] {
			continue
		}
		m, err := s.Members.Get(ctx, store.AsLeader, id)
		if err != nil {
			return in, nil, err
		}
		if m != nil {
			list = append(list, api.CAPending{NodeID: id, Name: m.Name, Reason: why[id]})
		}
	}
	return in, list, nil
}

const maxOverlap = 90 * 24 * time.Hour

// caFields are all that rotateCA takes. A misspelt dryRun that is silently ignored would start a rotation.
var caFields = []string{"kind", "action", "dryrun", "force", "overlap", "certpem", "keypem"}

func parseCARequest(body []byte) (r store.CARequest, err error) {
	if len(body) == 0 {
		body = []byte("{}")
	}
	f, err := handlers.ParseFields(body)
	if err != nil {
		return r, err
	}
	for name := range f.Raw {
		if !slices.Contains(caFields, name) {
			f.Refuse("%.64q is not a field of this request", name)
		}
	}
	kind := f.Text("kind", false, 0, 16)
	r.Action = f.Text("action", false, 0, 16)
	f.Get("dryRun", false, "true or false", &r.DryRun)
	f.Get("force", false, "true or false", &r.Force)
	var overlap, cert, key string
	f.Get("overlap", false, "a duration such as 24h", &overlap)
	f.Get("certPEM", false, "a string", &cert)
	f.Get("keyPEM", false, "a string", &key)
	if f.Err != nil {
		return r, f.Err
	}
	bad := func(text string) (store.CARequest, error) { return r, handlers.Fail(http.StatusBadRequest, text) }
	if r.Kinds = caKinds(kind); r.Kinds == nil {
		return bad("kind must be http, transport, workload or all")
	}
	r.Action = cmp.Or(r.Action, store.CAStart)
	if why := caConflict(&r, f.Has("overlap"), cert, key); why != "" {
		return bad(why)
	}
	if cert == "" && (f.Has("certPEM") || f.Has("keyPEM")) { // without them the cluster makes itself a CA
		return bad("certPEM and keyPEM must not be empty")
	}
	for column, text := range map[string]string{"cert_pem": cert, "sealed_key": key} {
		if err := store.CheckSize("authorities", column, []byte(text)); err != nil {
			return r, err
		}
	}
	if cert != "" {
		r.CertPEM, r.KeyPEM = []byte(cert), []byte(key)
	}
	if f.Has("overlap") {
		r.Overlap, err = parseOverlap(overlap)
	}
	return r, err
}

// caKinds are the kinds that a request names; nil for a name that there is not.
func caKinds(name string) []certs.Kind {
	switch name {
	case "", "all":
		return []certs.Kind{certs.HTTP, certs.Transport, certs.Workload}
	case "http", "transport", "workload":
		return []certs.Kind{certs.Kind(name)}
	}
	return nil
}

func parseOverlap(text string) (*time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxOverlap || d%time.Second != 0 {
		return nil, handlers.Fail(http.StatusBadRequest,
			"overlap must be a duration of whole seconds between 0s and 2160h, such as 24h")
	}
	return &d, nil
}

// caConflict says which fields of a request do not go together, "" when they do.
func caConflict(r *store.CARequest, overlap bool, cert, key string) string {
	start, goesOn := r.Action == store.CAStart, r.Action == store.CAContinue || r.Action == store.CADrop
	switch {
	case !start && !goesOn && r.Action != store.CARollback:
		return "action must be start, continue, drop or rollback"
	case r.Force && !goesOn:
		return "force goes with the actions continue and drop only: a rotation that has begun can be made to go on " +
			"without some members"
	case overlap && r.Action == store.CADrop:
		return "overlap does not go with the action drop, which ends the overlap"
	case (cert != "" || key != "") && !start:
		return "certPEM and keyPEM go with the action start only"
	case (cert == "") != (key == ""):
		return "certPEM and keyPEM must be given together"
	case cert != "" && len(r.Kinds) > 1:
		return "kind must be http, transport or workload with certPEM: one CA is for one kind"
	}
	return ""
}

// rotateCA starts the rotation of an authority or of both, or changes one that is under way.
func (s *service) rotateCA(q *handlers.Request) error {
	r, err := parseCARequest(q.Content)
	if err != nil {
		return err
	}
	var waiting []api.CAPending
	if r.Installed, waiting, err = s.pending(q.Context()); err != nil {
		return err
	}
	if r.Action != store.CAStart && len(r.Kinds) > 1 { // several may be under way
		running, err := s.Authorities.Rotations(q.Context(), store.AsLeader)
		if err != nil {
			return err
		}
		if len(running) > 0 {
			r.Kinds = nil
		}
		for i := range running {
			r.Kinds = append(r.Kinds, running[i].Kind)
		}
	}
	done, err := s.Authorities.Change(q.Context(), q.Actor, r)
	if err != nil {
		return err
	}
	s.Cluster.Wake()
	if r.Action != store.CADrop {
		for _, p := range waiting {
			if p.Reason != "" && !r.Force {
				done.Warnings = append(done.Warnings,
					fmt.Sprintf("node %d (%s) %s: the rotation waits for it", p.NodeID, p.Name, p.Reason))
			}
		}
	}
	return q.Result(http.StatusOK, api.CAChange{DryRun: r.DryRun, Steps: done.Steps, Warnings: done.Warnings})
}

const (
	defaultCertificates = 1000
	maxCertificates     = 10_000
)

// listCertificates lists leaves by expiry, the first to expire first.
func (s *service) listCertificates(q *handlers.Request) error {
	f, err := s.certificateFilter(q)
	if err != nil {
		return err
	}
	list, err := s.Certificates.List(q.Context(), q.Consistency(), f)
	if err != nil {
		return err
	}
	out := make([]api.Certificate, len(list))
	for i, c := range list {
		out[i] = api.Certificate{
			Serial:    c.Serial,
			Kind:      string(c.Kind),
			NodeID:    c.NodeID,
			Node:      c.NodeName,
			Authority: c.Authority,
			IssuedAt:  api.Time(c.IssuedAt),
			ExpiresAt: api.Time(c.ExpiresAt),
			DaysLeft:  daysLeft(c.ExpiresAt, s.Now()),
			RevokedAt: api.TimePointer(c.RevokedAt),
			Current:   c.Current,
		}
	}
	return q.Result(http.StatusOK, out)
}

// certificateFilter reads which leaves are asked for.
func (s *service) certificateFilter(q *handlers.Request) (f store.CertificateFilter, err error) {
	query := q.URL.Query()
	bad := func(text string) (store.CertificateFilter, error) {
		return f, handlers.Fail(http.StatusBadRequest, text)
	}
	f = store.CertificateFilter{Kind: query.Get("kind"), Limit: defaultCertificates}
	if len(f.Kind) > 32 {
		return bad("kind must be the name of a kind, such as http or transport")
	}
	if f.NodeID, err = s.membership.Filter(q, "nodeId"); err != nil {
		return f, err
	}
	if v := query.Get("expiresWithin"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return bad("expiresWithin must be a duration such as 720h")
		}
		f.ExpiresBefore = s.Now().Add(d)
	}
	if v := query.Get("current"); v != "" {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return bad("current must be true or false")
		}
		f.CurrentOnly = on
	}
	if v := query.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxCertificates {
			return bad("limit must be a whole number between 1 and 10000")
		}
		f.Limit = n
	}
	return f, nil
}
