package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"

	"github.com/google/uuid"
)

// Joiner is a checked request to become a member, with everything that is prepared outside the transaction.
type Joiner struct {
	TokenID       string
	Member        Member // without NodeID, ID, overlay and times
	Wrap          []byte // the data-encryption key for Member.Recipient, or nil
	DEKGeneration uint64
	Certificates  []Certificate // to be issued; Join sets NodeID
	PublicKey     []byte        // raw, for tokens bound to a key
	KeyRetired    bool          // the token's key is retired: it identifies former users only
	CertKey       string        // SHA-256 of the CSR's public key, lower hex, or empty

	// Alive returns "alive", "down", "left" or "unknown" for a member; nil: nothing is known about any member.
	Alive func(nodeID uint64) string
}

// Joined is the identity given to a joiner.
type Joined struct {
	Member       Member
	Rejoined     bool // it was already a member
	Certificates []Certificate
	Hosts        []string // in its certificates
	Warnings     []string

	DEKGeneration, SecretEpoch uint64 // of the keys in the answer; 0 in answers of older members
}

// Join verifies the token, allocates an identity, registers the member and consumes the token, in one transaction: a
// refused join consumes nothing. The same token with the same key gives the same identity.
func (ms Members) Join(ctx context.Context, actor Actor, j Joiner) (Joined, error) {
	id := uuid.Must(uuid.NewV7()).String() // increases with time: see NewID
	return makeOnceUnless(ctx, ms.s, actor, func(tx *Tx, old *Joined) error { return tx.joinedAgain(j, old) },
		func(tx *Tx) (out Joined, err error) {
			if out, err = tx.join(j, id, actor); err == nil {
				out.DEKGeneration = j.DEKGeneration
				out.SecretEpoch, err = tx.joinSecretEpoch()
			}
			return out, err
		})
}

func (t *Tx) joinSecretEpoch() (epoch uint64, err error) {
	_, err = t.get("SELECT epoch FROM cluster_keys WHERE purpose = ? AND state = 'active'", []any{KeyJoinSecret}, &epoch)
	return epoch, err
}

// joinedAgain checks whether a repeated request may get its first answer: its token must be valid, the joiner a member,
// and the keys in the answer current.
func (t *Tx) joinedAgain(j Joiner, old *Joined) error {
	if _, err := t.livingToken(j.TokenID); err != nil {
		return err
	}
	m, err := t.Member(old.Member.NodeID)
	if err != nil {
		return err
	}
	if m == nil || m.ID != old.Member.ID {
		return refuse(Forbidden,
			"the member that this request created has been removed; an Idempotency-Key does not restore it")
	}
	epoch, err := t.joinSecretEpoch()
	if err != nil {
		return err
	}
	g, err := t.grantsOf(m)
	if err != nil {
		return err
	}
	if old.Hosts, _, err = t.certHosts(m, g); err != nil { // by the present rules
		return err
	}
	switch outdated := old.SecretEpoch != epoch || old.DEKGeneration != j.DEKGeneration; {
	case outdated && t.actor.Auto(): // the forwarding member repeats it, not the joiner
		return errOutdated
	case outdated:
		return refuse(Conflict,
			"the cluster's keys were rotated since this request was answered; join again, with another Idempotency-Key")
	}
	return nil
}

// livingToken returns a join token that is neither revoked nor expired.
func (t *Tx) livingToken(id string) (*JoinToken, error) {
	token, err := t.joinToken(id)
	switch {
	case err != nil:
		return nil, err
	case token == nil:
		return nil, refuse(Unauthorized, "the join token is not known to this cluster")
	case token.RevokedAt != nil:
		return nil, refuse(Unauthorized, "token revoked")
	case t.Now.After(token.ExpiresAt):
		return nil, refuse(Unauthorized, "Invalid join token: expired")
	}
	return token, nil
}

func (t *Tx) join(j Joiner, id string, actor Actor) (out Joined, err error) {
	if j.Wrap != nil {
		var active uint64
		if _, err := t.get("SELECT generation FROM dek_generations WHERE state = 'active'", nil, &active); err != nil {
			return out, err
		}
		if active != j.DEKGeneration {
			return out, ErrKeyMoved
		}
	}
	token, err := t.livingToken(j.TokenID)
	if err != nil {
		return out, err
	}
	known, err := t.knownJoiner(j.Member.Recipient)
	if err != nil {
		return out, err
	}
	if known != nil {
		if err := t.useTokenAgain(&j, token, known.NodeID, actor); err != nil {
			return out, err
		}
		return t.rejoin(j, known, token, actor.Remote)
	}
	if j.KeyRetired || token.Superseded && token.Uses < token.MaxUses {
		return out, errSuperseded
	}
	if err := token.admits(&j, actor.Remote); err != nil {
		return out, err
	}
	return t.joinNew(j, id, token, actor)
}

// knownJoiner returns the member with this key, or nil. It rejects the key of a removed member.
func (t *Tx) knownJoiner(recipient string) (*Member, error) {
	if recipient == "" {
		return nil, nil
	}
	gone, err := t.get("SELECT 1 FROM removed_members WHERE recipient = ?", []any{recipient}, new(int))
	if err != nil {
		return nil, err
	}
	if gone {
		return nil, refuse(Forbidden,
			"this node was removed from the cluster and its key is refused; start with an empty data directory to join as a "+
				"new node")
	}
	return t.memberBy(selectMembers+" WHERE m.recipient = ?", recipient)
}

// useTokenAgain consumes a use of a token for a member that rejoins, unless it has already used that token.
func (t *Tx) useTokenAgain(j *Joiner, token *JoinToken, nodeID uint64, actor Actor) error {
	again, err := t.get("SELECT 1 FROM join_token_uses WHERE token_id = ? AND raft_node_id = ?",
		[]any{token.ID, int64(nodeID)}, new(int))
	if err != nil || again {
		return err
	}
	if j.KeyRetired || token.Superseded {
		return errSuperseded
	}
	if err := token.admits(j, actor.Remote); err != nil {
		return err
	}
	return t.useToken(token, nodeID, j.Member.Recipient, actor)
}

// joinNew registers a new member.
func (t *Tx) joinNew(j Joiner, id string, token *JoinToken, actor Actor) (out Joined, err error) {
	m := j.Member
	if token.Mode != "" {
		m.Mode = token.Mode
	}
	if m.NodeID, err = t.nodeIDFor(token); err != nil {
		return out, err
	}
	if err := t.useToken(token, m.NodeID, m.Recipient, actor); err != nil {
		return out, err
	}
	m.ID, m.JoinTokenID, m.Role, m.DrainState, m.CertKey = id, token.ID, RoleNone, DrainActive, j.CertKey
	if m.Name == "" {
		if m.Name, err = t.freeName(m.NodeID, id); err != nil {
			return out, err
		}
	}
	if len(token.Labels) > 0 {
		labels := map[string]string{}
		for k, v := range m.Labels {
			labels[k] = v
		}
		for k, v := range token.Labels { // the operator's labels take precedence
			labels[k] = v
		}
		m.Labels = labels
	}
	if err := CheckMemberName(m.Name); err != nil {
		return out, err
	}
	if out.Warnings, err = t.unique(&m, true, true, j.claims); err != nil {
		return out, err
	}
	grants, err := t.admitHosts(&m, token.grants(), HostEvidence{Remote: actor.Remote}, len(j.Certificates) > 0, j.claims)
	if err != nil {
		return out, err
	}
	if err := t.insertMember(&m, grants); err != nil {
		return out, err
	}
	if zone := m.Labels["zone"]; zone != NoZone && CheckZone(zone) == nil {
		if err := t.setZone(m.NodeID, zone); err != nil {
			return out, err
		}
	}
	if j.Wrap != nil {
		if err := t.exec(insertWrap, j.DEKGeneration, m.NodeID, j.Wrap, t.Rev); err != nil {
			return out, err
		}
	}
	out.Member = m
	if out.Hosts, _, err = t.certHosts(&m, grants); err != nil {
		return out, err
	}
	if out.Certificates, err = t.issue(j.Certificates, m.NodeID); err != nil {
		return out, err
	}
	return out, t.audit("member.join", nodeObject(m.NodeID), m.Name+" with join_token/"+token.ID)
}

var errSuperseded = refuse(Unauthorized, "Invalid join token: %s", Superseded)

// admits checks the bindings of a token.
func (k *JoinToken) admits(j *Joiner, remote string) error {
	if k.BindCIDR != "" {
		prefix, err := netip.ParsePrefix(k.BindCIDR)
		if err != nil {
			return err
		}
		addr, err := netip.ParseAddr(remote)
		if err != nil || !prefix.Contains(addr.Unmap()) {
			return refuse(Unauthorized, "the token is for machines in %s only", k.BindCIDR)
		}
	}
	if k.BindName != "" {
		if ok, err := path.Match(k.BindName, j.Member.Name); err != nil || !ok {
			return refuse(Unauthorized, "the token is for machines named %s only", k.BindName)
		}
	}
	if k.BindKey != "" {
		sum := sha256.Sum256(j.PublicKey)
		if j.PublicKey == nil || hex.EncodeToString(sum[:]) != k.BindKey {
			return refuse(Unauthorized, "the token is bound to another public key")
		}
	}
	return nil
}

// rejoin updates a member's description of itself; identity, overlay addresses and role are unchanged.
func (t *Tx) rejoin(j Joiner, m *Member, token *JoinToken, remote string) (out Joined, err error) {
	if token.NodeID != 0 && token.NodeID != m.NodeID {
		return out, refuse(Conflict, "the token is for node %d but this key belongs to node %d", token.NodeID, m.NodeID)
	}
	// The public key proves nothing, since everybody can read it. A member that has certificates must prove that it owns
	// their key: its CSR is signed with it.
	if m.CertKey != "" && j.CertKey != m.CertKey {
		return out, refuse(Forbidden,
			"node %d has certificates: to rejoin, send a transport_csr signed with their key, or remove the member "+
				"and join as a new one", m.NodeID)
	}
	moved := *m
	moved.RaftAddress, moved.APIAddress, moved.AdvertiseAddr = j.Member.RaftAddress, j.Member.APIAddress,
		j.Member.AdvertiseAddr
	if moved.RaftAddress != m.RaftAddress || moved.APIAddress != m.APIAddress {
		if out.Warnings, err = t.unique(&moved, true, false, j.claims); err != nil {
			return out, err
		}
	}
	grants, err := t.grantRejoined(j, m, &moved, token, remote)
	if err != nil {
		return out, err
	}
	if m, err = t.describeAgain(j, m); err != nil {
		return out, err
	}
	if j.Wrap != nil {
		if err := t.exec("INSERT INTO dek_wraps (generation, raft_node_id, wrap, created_rev) VALUES (?, ?, ?, ?) "+
			"ON CONFLICT DO NOTHING",
			j.DEKGeneration, m.NodeID, j.Wrap, t.Rev); err != nil {
			return out, err
		}
	}
	out.Member, out.Rejoined = *m, true
	if out.Hosts, _, err = t.certHosts(m, grants); err != nil {
		return out, err
	}
	if out.Certificates, err = t.issue(j.Certificates, m.NodeID); err != nil {
		return out, err
	}
	row := AuditRow{
		Actor:   t.actor.String(),
		NodeID:  t.actor.NodeID,
		Remote:  t.actor.Remote,
		Action:  "member.rejoin",
		Object:  nodeObject(m.NodeID),
		Outcome: outcomeOK,
		Detail:  "with join_token/" + token.ID,
	}
	if !t.tx.Changed() || !t.rejoins.may(m.NodeID, t.Now) {
		row.Outcome = outcomeReplayed
	}
	return out, t.auditRow(row)
}

// describeAgain stores what a member that joins again says about itself, and returns its row.
func (t *Tx) describeAgain(j Joiner, m *Member) (*Member, error) {
	n, err := t.execCount(`UPDATE members SET raft_address = ?1, api_address = ?2, advertise_addr = ?3, overlay_port = ?4,
		wg_public_key = ?5,
		binary_version = ?6, max_schema = ?7, modified_rev = ?8
		WHERE raft_node_id = ?9 AND (raft_address <> ?1 OR api_address <> ?2
		OR advertise_addr <> ?3 OR overlay_port <> ?4 OR wg_public_key <> ?5 OR binary_version <> ?6 OR max_schema <> ?7)`,
		j.Member.RaftAddress, j.Member.APIAddress, j.Member.AdvertiseAddr, j.Member.OverlayPort, j.Member.WGPublicKey,
		j.Member.BinaryVersion, j.Member.MaxSchema, t.Rev, m.NodeID)
	if err != nil || n == 0 {
		return m, err
	}
	return t.Member(m.NodeID)
}

func (t *Tx) issue(list []Certificate, nodeID uint64) ([]Certificate, error) {
	out := make([]Certificate, len(list))
	for i, c := range list {
		c.NodeID = nodeID
		if err := t.insertCertificate(c); err != nil {
			return nil, err
		}
		out[i] = c
	}
	return out, nil
}

func (t *Tx) useToken(token *JoinToken, nodeID uint64, recipient string, actor Actor) error {
	if token.Uses >= token.MaxUses {
		return refuse(Unauthorized, "Join token already used (replay)")
	}
	// When a batch has several joins with one token, only the last count goes to dqlite.
	if err := t.execLast("token/"+token.ID, "UPDATE join_tokens SET uses = ?, modified_rev = ? WHERE id = ?",
		token.Uses+1, t.Rev, token.ID); err != nil {
		return err
	}
	return t.exec("INSERT INTO join_token_uses (token_id, raft_node_id, recipient, used_at, remote) "+
		"VALUES (?, ?, ?, ?, ?)",
		token.ID, nodeID, optional(recipient), t.Now, actor.Remote)
}

// nodeIDFor returns the token's node id, or the next id of the sequence that no member has or had and no usable token
// reserves.
func (t *Tx) nodeIDFor(token *JoinToken) (uint64, error) {
	var last uint64
	if _, err := t.get("SELECT value FROM sequences WHERE name = 'raft_node_id'", nil, &last); err != nil {
		return 0, err
	}
	id := token.NodeID
	if id == 0 {
		id = last + 1
		for {
			taken, err := t.get(`SELECT 1 WHERE EXISTS (SELECT 1 FROM members WHERE raft_node_id = ?1)
				OR EXISTS (SELECT 1 FROM removed_members WHERE raft_node_id = ?1)
				OR EXISTS (SELECT 1 FROM join_tokens WHERE raft_node_id = ?1 AND revoked_at IS NULL AND uses < max_uses
				AND expires_at >= ?2)`,
				[]any{int64(id), rfc3339(t.Now)}, new(int))
			if err != nil {
				return 0, err
			}
			if !taken {
				break
			}
			id++
		}
		return id, t.setSequence("raft_node_id", id)
	}
	return id, t.nodeIDFree(id)
}

func nodeObject(id uint64) string { return fmt.Sprintf("node/%d", id) }
