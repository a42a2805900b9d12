package store

import (
	"bytes"
	"fmt"
	"time"

	"muster/certs"
)

// startCA makes the new authority, or takes the operator's, and has the old and the new one certify each other.
func (as Authorities) startCA(tx *Tx, q CARequest, kind certs.Kind, step func(string, ...any), out *CAChange) error {
	list, err := tx.inUse(kind)
	if err != nil {
		return err
	}
	old, err := list[0].open(&as.s.keys)
	if err != nil {
		return err
	}
	c, _, err := tx.Cluster()
	if err != nil {
		return err
	}
	a := Authority{Kind: kind, Origin: OriginMuster}
	if _, err := tx.get("SELECT max(generation) + 1 FROM authorities WHERE kind = ?", []any{string(kind)}, &a.Generation); err != nil {
		return err
	}
	var next certs.CA
	if q.CertPEM == nil {
		if next, err = certs.NewSuccessor(kind, c.ID, a.Generation, tx.Now); err != nil {
			return err
		}
		a.CertPEM = string(certs.EncodeCert(next.Cert.Raw))
	} else if next, err = as.operatorsCA(tx, q, &list[0], &a, c.ID); err != nil {
		return err
	}
	crossNew, crossOld, warning := cross(old, next, tx.Now)
	if warning != "" {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %s", kind, warning))
	}
	if left := next.Cert.NotAfter.Sub(tx.Now); left < 3*expiryWarning {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: the new CA expires in %d days, and no certificate outlives it", kind, int(left.Hours()/24)))
	}
	key, err := certs.EncodeKey(next.Key)
	if err != nil {
		return err
	}
	defer clear(key)
	sealed, dek, err := as.s.keys.seal(AuthoritySecret(kind, a.Generation), key)
	if err != nil {
		return err
	}
	overlap := DefaultCAOverlap
	if q.Overlap != nil {
		overlap = *q.Overlap
	}
	for _, st := range []statement{
		{query: `INSERT INTO authorities (kind, generation, state, origin, cert_pem, cross_pem, fingerprint, sealed_key, dek_generation, created_at, expires_at,
			created_rev, modified_rev) VALUES (?, ?, 'prepared', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			args: []any{string(kind), a.Generation, a.Origin, a.CertPEM, crossNew, certs.Fingerprint(next.Cert.Raw), sealed, dek, tx.Now, next.Cert.NotAfter, tx.Rev, tx.Rev}},
		{query: "UPDATE authorities SET cross_pem = ?, modified_rev = ? WHERE kind = ? AND state = 'active'", args: []any{crossOld, tx.Rev, string(kind)}},
		{query: `INSERT INTO ca_rotations (kind, phase, old_generation, new_generation, overlap_seconds, started_at, started_by, phase_at, modified_rev)
			VALUES (?, 'trust', ?, ?, ?, ?, ?, ?, ?)`,
			args: []any{string(kind), list[0].Generation, a.Generation, int64(overlap / time.Second), tx.Now, tx.actor.String(), tx.Now, tx.Rev}},
	} {
		if err := tx.exec(st.query, st.args...); err != nil {
			return err
		}
	}
	holders, err := tx.trustHolders()
	if err != nil {
		return err
	}
	if kind == certs.HTTP {
		var tokens int
		if _, err := tx.get("SELECT count(*) FROM join_tokens WHERE format = 'muster' AND revoked_at IS NULL AND uses < max_uses AND expires_at > ?",
			[]any{rfc3339(tx.Now.Add(overlap))}, &tokens); err != nil {
			return err
		}
		if tokens > 0 {
			out.Warnings = append(out.Warnings, fmt.Sprintf("http: %d join tokens that can still be used pin the old CA and are valid for longer than the overlap; they end with it", tokens))
		}
	}
	step("generation %d (%as.s, valid until %as.s) becomes trusted by %d members", a.Generation, next.Cert.Subject, rfc3339(next.Cert.NotAfter), len(holders))
	step("then it issues, and every member gets new certificates")
	step("%s after that generation %d is dropped and its key erased", overlap, list[0].Generation)
	return tx.audit("ca.rotate", caObject(kind), fmt.Sprintf("generation %d, %s", a.Generation, a.Origin))
}

// operatorsCA checks what an operator brings.
func (as Authorities) operatorsCA(tx *Tx, q CARequest, old, a *Authority, clusterID string) (certs.CA, error) {
	members, err := tx.Members()
	if err != nil {
		return certs.CA{}, err
	}
	trial := certs.Leaf{Kind: a.Kind, ClusterID: clusterID, NodeID: 1, Name: "trial"}
	seen := map[string]bool{}
	for i := range members {
		g, err := tx.grantsOf(&members[i])
		if err != nil {
			return certs.CA{}, err
		}
		hosts, _, err := tx.certHosts(&members[i], g)
		if err != nil {
			return certs.CA{}, err
		}
		for _, h := range hosts {
			if !seen[h] {
				seen[h] = true
				trial.Hosts = append(trial.Hosts, h)
			}
		}
	}
	ca, chain, err := certs.ParseAuthority(q.CertPEM, q.KeyPEM, trial, tx.Now)
	if err != nil {
		return ca, refuse(Invalid, "%s", err.Error())
	}
	if certs.Fingerprint(ca.Cert.Raw) == old.Fingerprint {
		return ca, refuse(Conflict, "this is the %s CA that the cluster has already", a.Kind)
	}
	if ca.Cert.Subject.String() == old.Subject {
		return ca, refuse(Invalid, "the subject of the CA certificate must differ from that of the current %s CA: verifiers find an issuer by its name", a.Kind)
	}
	other := certs.Transport
	if a.Kind == certs.Transport {
		other = certs.HTTP
	}
	others, err := tx.inUse(other)
	if err != nil {
		return ca, err
	}
	for i := range others {
		list, err := certs.ParseCerts([]byte(others[i].CertPEM))
		if err != nil {
			return ca, err
		}
		if bytes.Equal(list[0].RawSubjectPublicKeyInfo, ca.Cert.RawSubjectPublicKeyInfo) {
			return ca, refuse(Conflict, "this is the %s CA: with one key for both, a certificate of one listener would open the other", other)
		}
	}
	a.Origin = OriginOperator
	for _, c := range chain {
		a.CertPEM += string(certs.EncodeCert(c.Raw))
	}
	return ca, nil
}

// cross has two authorities certify each other, as PEM: who trusts one of them verifies what the other has issued.
func cross(old, next certs.CA, now time.Time) (nextByOld, oldByNext, warning string) {
	if der, err := old.CrossSign(next.Cert, now); err == nil {
		nextByOld = string(certs.EncodeCert(der))
	} else {
		warning = "the old CA cannot certify the new one: clients need the new CA before it issues"
	}
	if der, err := next.CrossSign(old.Cert, now); err == nil {
		oldByNext = string(certs.EncodeCert(der))
	} else if warning == "" {
		warning = "the new CA cannot certify the old one: clients that have the new CA alone work once every member has its new certificates"
	}
	return nextByOld, oldByNext, warning
}
