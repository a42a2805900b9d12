package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/certs"
)

// workloadsSchema is the schema step that added the workload authority and the tables of workloads.
const workloadsSchema = 3

// Workload is software that gets an identity from the members it runs on. A process belongs to it when it matches every
// selector that is not empty: Unix user, Unix group, systemd unit.
type Workload struct {
	ID        string
	Path      string // of its SPIFFE ID in the trust domain of the cluster, such as /billing/api
	NodeID    uint64 // the member that it runs on; 0: any
	User      string // name in the member's /etc/passwd, or uid
	Group     string // name or gid; supplementary groups count
	Unit      string // such as postgresql.service
	Hosts     []string
	CreatedBy string
	CreatedAt time.Time
}

// Settings of workload identities.
const (
	SettingX509Lifetime = "workloads.x509_lifetime"
	SettingJWTLifetime  = "workloads.jwt_lifetime"
)

var workloadSettings = []Setting{
	durationSetting(SettingX509Lifetime, time.Hour, 5*time.Minute, 7*24*time.Hour,
		"how long certificates of workloads are valid; they are renewed after half of that"),
	durationSetting(SettingJWTLifetime, 5*time.Minute, time.Minute, time.Hour,
		"how long JWT-SVIDs of workloads are valid"),
}

// Lifetimes returns how long certificates and JWT-SVIDs of workloads are valid.
func (st Settings) Lifetimes(ctx context.Context, c Consistency) (x509, jwt time.Duration, err error) {
	var one, other string
	if err := st.values(ctx, c, map[string]any{SettingX509Lifetime: &one, SettingJWTLifetime: &other}); err != nil {
		return 0, 0, err
	}
	if x509, err = time.ParseDuration(one); err != nil {
		return 0, 0, err
	}
	jwt, err = time.ParseDuration(other)
	return x509, jwt, err
}

const (
	maxWorkloadHosts = 16
	nobody           = 65534 // the kernel's id for unmapped users
)

var (
	accountName = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,62}\$?$`)
	unitName    = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]{1,200}\.(service|scope|slice)$`)
)

// Check rejects an invalid registration, in a sentence that names the field and the rule.
func (w *Workload) Check(clusterID string) error {
	if _, err := certs.WorkloadID(clusterID, w.Path); err != nil {
		return refuse(Invalid, "%s", err.Error())
	}
	if w.User == "" && w.Group == "" && w.Unit == "" {
		return refuse(Invalid, "one of user, group and unit must be given: without a selector every process would match")
	}
	for _, x := range []struct{ field, value string }{{"user", w.User}, {"group", w.Group}} {
		if x.value != "" && !validAccount(x.value) {
			return refuse(Invalid, "%s must be a name as in /etc/passwd and /etc/group, or a number, and not that of nobody",
				x.field)
		}
	}
	if w.Unit != "" && !unitName.MatchString(w.Unit) {
		return refuse(Invalid, "unit must be the name of a systemd unit that ends with .service, .scope or .slice")
	}
	if len(w.Hosts) > maxWorkloadHosts {
		return refuse(Invalid, "hosts must be at most %d", maxWorkloadHosts)
	}
	if err := certs.CheckHosts(w.Hosts); err != nil {
		return refuse(Invalid, "hosts must be DNS names and IP addresses: %s", err.Error())
	}
	return nil
}

// validAccount reports whether a text is a valid name or id of a user or a group.
func validAccount(name string) bool {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return strconv.FormatUint(n, 10) == name && n != nobody && n != 1<<32-1
	}
	return accountName.MatchString(name) && name != "nobody" && name != "nogroup"
}

const selectWorkloads = `SELECT id, path, raft_node_id, unix_user, unix_group, systemd_unit, hosts, created_by,
	created_at FROM workloads`

func scanWorkload(rows *sql.Rows) (w Workload, err error) {
	var hosts, created string
	if err := rows.Scan(&w.ID, &w.Path, &w.NodeID, &w.User, &w.Group, &w.Unit, &hosts, &w.CreatedBy,
		&created); err != nil {
		return w, err
	}
	w.CreatedAt = parseTime(created)
	return w, json.Unmarshal([]byte(hosts), &w.Hosts)
}

// Create registers a workload and reports whether it is new: the same selectors for the same path on the same member
// are the same registration.
func (ws Workloads) Create(ctx context.Context, actor Actor, clusterID string, w Workload) (Workload, bool, error) {
	if err := w.Check(clusterID); err != nil {
		return w, false, err
	}
	type made struct {
		Workload Workload
		Created  bool
	}
	out, err := makeOnce(ctx, ws.s, actor, func(tx *Tx) (made, error) {
		out, created, err := tx.createWorkload(w)
		return made{out, created}, err
	})
	return out.Workload, out.Created, err
}

func (t *Tx) createWorkload(w Workload) (Workload, bool, error) {
	old, err := collect(&t.View, scanWorkload, selectWorkloads+` WHERE path = ? AND raft_node_id = ? AND unix_user = ?
		AND unix_group = ? AND systemd_unit = ?`, w.Path, int64(w.NodeID), w.User, w.Group, w.Unit)
	switch {
	case err != nil:
		return w, false, err
	case len(old) > 0 && slices.Equal(old[0].Hosts, w.Hosts):
		return old[0], false, nil
	case len(old) > 0:
		return w, false, refuse(Conflict, "workload %s is registered with the same path and selectors and other hosts; "+
			"delete it first", old[0].ID)
	}
	if w.NodeID != 0 {
		if m, err := t.Member(w.NodeID); err != nil {
			return w, false, err
		} else if m == nil {
			return w, false, errNoMember
		}
	}
	if err := t.bound(SettingLimitWorkloads, "workloads", "SELECT count(*) FROM workloads"); err != nil {
		return w, false, err
	}
	hosts, err := jsonText(w.Hosts, "[]")
	if err != nil {
		return w, false, err
	}
	w.ID, w.CreatedBy, w.CreatedAt = NewID(), t.actor.String(), t.Now
	if err := t.exec(`INSERT INTO workloads (id, path, raft_node_id, unix_user, unix_group, systemd_unit, hosts,
		created_by, created_at, created_rev, modified_rev) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		w.ID, w.Path, w.NodeID, w.User, w.Group, w.Unit, hosts, w.CreatedBy, w.CreatedAt, t.Rev, t.Rev); err != nil {
		return w, false, err
	}
	return w, true, t.audit("workload.create", workloadObject(w.Path), made("id", w.ID, "node", w.NodeID, "user", w.User,
		"group", w.Group, "unit", w.Unit, "hosts", strings.Join(w.Hosts, ",")))
}

func workloadObject(path string) string { return "workload" + path }

// Delete deletes a registration: its identities are no longer issued or renewed.
func (ws Workloads) Delete(ctx context.Context, actor Actor, id string) error {
	return doOnce(ctx, ws.s, actor, func(tx *Tx) error {
		list, err := collect(&tx.View, scanWorkload, selectWorkloads+" WHERE id = ?", id)
		switch {
		case err != nil:
			return err
		case len(list) == 0:
			return errNoWorkload
		}
		if err := tx.exec("DELETE FROM workloads WHERE id = ?", id); err != nil {
			return err
		}
		return tx.audit("workload.delete", workloadObject(list[0].Path), made("id", id))
	})
}

var errNoWorkload = refuse(NotFound, "workload not found")

// deleteWorkloadsOf deletes the registrations for a removed member, whose id is never reused.
func (t *Tx) deleteWorkloadsOf(nodeID uint64) error {
	if n, err := t.SchemaVersion(); err != nil || n < workloadsSchema {
		return err
	}
	return t.exec("DELETE FROM workloads WHERE raft_node_id = ?", int64(nodeID))
}

// List lists the workloads by path. Callers must not modify the list.
func (ws Workloads) List(ctx context.Context, c Consistency) ([]Workload, error) {
	return recall(ctx, ws.s, c, "workloads", []string{"workloads"}, func(v *View) ([]Workload, error) {
		return collect(v, scanWorkload, selectWorkloads+" ORDER BY path, raft_node_id, id")
	})
}

// Get returns one registration.
func (ws Workloads) Get(ctx context.Context, c Consistency, id string) (w Workload, err error) {
	list, err := ws.List(ctx, c)
	if err != nil {
		return w, err
	}
	i := slices.IndexFunc(list, func(w Workload) bool { return w.ID == id })
	if i < 0 {
		return w, errNoWorkload
	}
	return list[i], nil
}

// Of lists the workloads that a member may issue identities for: those registered for it, or for any member.
func (ws Workloads) Of(ctx context.Context, c Consistency, nodeID uint64) (list []Workload, err error) {
	all, err := ws.List(ctx, c)
	for i := range all {
		if all[i].NodeID == 0 || all[i].NodeID == nodeID {
			list = append(list, all[i])
		}
	}
	return list, err
}

// RefusedCaller is a process that asked a member for an identity and has none.
type RefusedCaller struct {
	UID, GID uint32
	Unit     string // empty when it is not known
	Count    int    // requests since the last row
}

// NoteRefused writes an audit row for each refused caller.
func (ws Workloads) NoteRefused(ctx context.Context, nodeID uint64, list []RefusedCaller) error {
	actor := Actor{Name: "workload", NodeID: nodeID}
	return ws.s.Write(ctx, actor, func(tx *Tx) error {
		for _, r := range list {
			if err := tx.auditRow(AuditRow{
				Actor:   actor.Name,
				NodeID:  nodeID,
				Action:  "workload.refuse",
				Object:  nodeObject(nodeID),
				Outcome: outcomeRefused,
				Detail:  made("uid", r.UID, "gid", r.GID, "unit", r.Unit, "times", r.Count),
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// PeerBundle is the trust bundle of another cluster.
type PeerBundle struct {
	Peering     string // name
	TrustDomain string // the other cluster's id
	Bundle      string // JSON, SPIFFE's format
}

// Bundles lists the trust bundles of peered clusters. An interrupted peering keeps its bundle; an ended one has none.
func (ps Peerings) Bundles(ctx context.Context, c Consistency) ([]PeerBundle, error) {
	return recall(ctx, ps.s, c, "peer-bundles", []string{"peerings", "peer_bundles"}, (*View).peerBundles)
}

func (v *View) peerBundles() ([]PeerBundle, error) {
	return collect(v, func(rows *sql.Rows) (b PeerBundle, err error) {
		return b, rows.Scan(&b.Peering, &b.TrustDomain, &b.Bundle)
	}, `SELECT p.name, b.trust_domain, b.bundle FROM peer_bundles b JOIN peerings p ON p.id = b.peering_id
		WHERE p.state NOT IN ('DELETING', 'TERMINATED') ORDER BY b.trust_domain`)
}

// newFor reports whether to store a bundle for a peering. The first bundle fixes the other cluster's trust domain: it
// rejects a later bundle with another trust domain, and a bundle with the trust domain of this cluster or another
// peering.
func (b *PeerBundle) newFor(p *Peering, known []PeerBundle) bool {
	for i := range known {
		k := &known[i]
		switch {
		case k.Peering == p.Name && k.TrustDomain == b.TrustDomain:
			return k.Bundle != b.Bundle
		case k.Peering == p.Name, k.TrustDomain == b.TrustDomain:
			return false
		}
	}
	return true
}

// putPeerBundle stores a trust bundle received from another cluster. It returns the approximate size in bytes; 0 when
// the bundle is rejected.
func (t *Tx) putPeerBundle(p *Peering, b *PeerBundle) (int, error) {
	known, err := t.peerBundles()
	if err != nil || !b.newFor(p, known) {
		return 0, err
	}
	c, _, err := t.Cluster()
	if err != nil || c.ID == b.TrustDomain {
		return 0, err
	}
	if err := t.exec(`INSERT INTO peer_bundles (peering_id, trust_domain, bundle, received_at, modified_rev)
		VALUES (?, ?, ?, ?, ?) ON CONFLICT (peering_id) DO UPDATE SET bundle = excluded.bundle,
		received_at = excluded.received_at, modified_rev = excluded.modified_rev`,
		p.ID, b.TrustDomain, b.Bundle, t.Now, t.Rev); err != nil {
		return 0, err
	}
	return rowBytes + len(b.Bundle), t.audit("peering.bundle", peeringObject(p.Name), made("trust_domain", b.TrustDomain))
}

// forgetPeerBundle deletes the trust bundle of a peering.
func (t *Tx) forgetPeerBundle(id string) error {
	if n, err := t.SchemaVersion(); err != nil || n < workloadsSchema {
		return err
	}
	return t.exec("DELETE FROM peer_bundles WHERE peering_id = ?", id)
}
