package store

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"time"

	"muster/certs"
)

// Enroller issues and records the key material of other software that enrolls.
type Enroller struct {
	Store     *Store
	ClusterID string
	Now       func() time.Time
}

var (
	// ErrNoIntermediate: the operator's HTTP authority may not certify an intermediate. Nothing happened.
	ErrNoIntermediate = errors.New("the operator's HTTP authority may not certify an intermediate")
	// ErrRootReplaced: a repeated request was first answered with the key of an HTTP authority that has been replaced.
	ErrRootReplaced = errors.New("the HTTP authority has been replaced")
)

// kibanaTokenLifetime is the lifetime of the service token of a Kibana.
const kibanaTokenLifetime = 30 * 24 * time.Hour

// Node enrolls a node with the API key keyID or, when that is empty, with an API token. The transport key and
// certificate are generated for this call, before the transaction that records the enrollment and consumes a use of the
// key. The result always has HTTPCAKey. Errors are ErrNoIntermediate and ErrRootReplaced among others.
func (en *Enroller) Node(ctx context.Context, actor Actor, keyID string) (m Material, err error) {
	st := en.Store
	options, err := st.Settings.Enrollment(ctx, AsLeader)
	if err != nil {
		return m, err
	}
	trust, err := st.Authorities.Trust(ctx, AsLeader)
	if err != nil {
		return m, err
	}
	members, err := st.Members.List(ctx, AsLeader)
	if err != nil {
		return m, err
	}
	e := en.begin(EnrollNode, keyID, options.Lifetime)
	if e.Replay, err = st.Answered(ctx, actor); err != nil {
		return m, err
	}
	if !e.Replay {
		if err := en.prepareNode(ctx, &e, actor, options, trust, members); err != nil {
			return m, err
		}
	}
	return en.finishNode(ctx, actor, e, trust.HTTP)
}

func (en *Enroller) begin(kind, keyID string, lifetime time.Duration) Enrolling {
	return Enrolling{Enrollment: Enrollment{ID: NewID(), Kind: kind, KeyID: keyID,
		ExpiresAt: en.Now().Add(lifetime).Truncate(time.Second)}}
}

func (en *Enroller) prepareNode(ctx context.Context, e *Enrolling, actor Actor, options EnrollmentSettings,
	trust *Trust, members []Member) error {
	root := trust.HTTP
	for i := range members {
		e.Material.NodesAddresses = append(e.Material.NodesAddresses, members[i].RaftAddress)
	}
	if err := e.makeTransport(trust.Transport.CA, options.KeyType, en.ClusterID, en.Now()); err != nil {
		return err
	}
	e.Material.HTTPCACert = root.Cert.Raw
	// The key of an operator's own CA is never handed out.
	if options.HTTPCA != HTTPCAIntermediate && !root.Operators {
		return nil
	}
	if root.Cert.MaxPathLenZero {
		return ErrNoIntermediate
	}
	allowed, err := en.Store.Settings.CertificateHosts(ctx, AsLeader)
	if err != nil {
		return err
	}
	permitted := certs.Permitted{Names: allowed.Exact, Below: allowed.Below, Networks: allowed.Networks}
	return e.makeIntermediate(root.CA, options.KeyType, en.ClusterID, en.Now(), permitted, members, actor.Remote)
}

// finishNode commits an enrollment and returns its material, or for a repeated request the first answer. Remembered
// answers do not contain the root's key; it is added again as long as the root is the same.
func (en *Enroller) finishNode(ctx context.Context, actor Actor, e Enrolling, root Issuer) (m Material, err error) {
	rootKey, err := certs.MarshalKey(root.Key)
	if err != nil {
		return m, err
	}
	if e, err = en.Store.Enrollments.Enroll(ctx, actor, e); err != nil {
		return m, err
	}
	m = e.Material
	if m.HTTPCAKey == nil {
		if root.Operators || !bytes.Equal(m.HTTPCACert, root.Cert.Raw) {
			return m, ErrRootReplaced
		}
		m.HTTPCAKey = rootKey
	}
	return m, nil
}

// Kibana enrolls a Kibana. It gets the HTTP authority's certificate and a service token, an API token without scopes,
// which authenticates it but allows nothing.
func (en *Enroller) Kibana(ctx context.Context, actor Actor, keyID string) (m Material, err error) {
	root, err := en.Store.Authorities.Issuing(ctx, AsLeader, certs.HTTP)
	if err != nil {
		return m, err
	}
	e := en.begin(EnrollKibana, keyID, kibanaTokenLifetime)
	e.Material.HTTPCACert = root.Cert.Raw
	t := APIToken{
		ID:        NewID(),
		Name:      fmt.Sprintf("enroll-process-token-%d", en.Now().UnixMilli()),
		Scopes:    []string{},
		Secret:    certs.NewSecret(),
		ExpiresAt: &e.ExpiresAt,
	}
	t.SecretHash = certs.HashSecret(t.Secret)
	e.Material.ServiceToken = t
	e, err = en.Store.Enrollments.Enroll(ctx, actor, e)
	return e.Material, err
}

// makeTransport generates the transport key of an enrollment and signs its certificate.
func (e *Enrolling) makeTransport(ca certs.CA, keyType, clusterID string, now time.Time) error {
	key, der, in, err := e.newKey(CertEnrolled, keyType, clusterID, now)
	if err != nil {
		return err
	}
	m := &e.Material
	m.TransportKey, m.TransportCACert, e.TransportSerial = der, ca.Cert.Raw, in.Serial.Text(16)
	m.TransportCert, err = ca.SignEnrolled(key.Public(), in)
	return err
}

// makeIntermediate issues an intermediate CA for the enrolling machine's address and the allowed hosts. It cannot sign
// for members' hosts, except hosts on that machine.
func (e *Enrolling) makeIntermediate(root certs.CA, keyType, clusterID string, now time.Time, allowed certs.Permitted,
	members []Member, remote string) error {
	if ip, err := netip.ParseAddr(remote); err == nil {
		ip = ip.WithZone("").Unmap()
		allowed.Networks = append(allowed.Networks, netip.PrefixFrom(ip, ip.BitLen()))
	}
	key, der, in, err := e.newKey(CertIntermediate, keyType, clusterID, now)
	if err != nil {
		return err
	}
	var except []string
	for i := range members {
		for _, host := range members[i].Hosts() {
			if host != remote {
				except = append(except, host)
			}
		}
	}
	m := &e.Material
	m.HTTPCAKey, e.HTTPCASerial = der, in.Serial.Text(16)
	m.HTTPCACert, err = root.SignIntermediate(key.Public(), in, allowed, except)
	return err
}

// newKey generates a key and the record of its future certificate.
func (e *Enrolling) newKey(kind certs.Kind, keyType, clusterID string,
	now time.Time) (key crypto.Signer, der []byte, in certs.Enrolled, err error) {
	if keyType == KeyTypeRSA {
		key, err = certs.NewRSAKey()
	} else {
		key, err = certs.NewKey()
	}
	if err != nil {
		return nil, nil, in, err
	}
	if der, err = certs.MarshalKey(key); err != nil {
		return nil, nil, in, err
	}
	record := NewCertificate(kind, now)
	record.ExpiresAt = e.ExpiresAt
	e.Certificates = append(e.Certificates, record)
	serial, ok := new(big.Int).SetString(record.Serial, 16)
	if !ok {
		return nil, nil, in, fmt.Errorf("%q is not a serial number", record.Serial)
	}
	return key, der, certs.Enrolled{
		ClusterID:    clusterID,
		EnrollmentID: e.ID,
		Serial:       serial,
		NotBefore:    record.IssuedAt.Add(-time.Hour),
		NotAfter:     record.ExpiresAt,
	}, nil
}
