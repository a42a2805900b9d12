package store

import (
	"crypto"
	"fmt"
	"math/big"
	"net/netip"
	"time"

	"muster/certs"
)

// MakeTransport makes a transport key of its own for an enrollment, and a certificate that the authority signs.
func (e *Enrolling) MakeTransport(ca certs.CA, keyType, clusterID string, now time.Time) error {
	key, der, in, err := e.newKey(CertEnrolled, keyType, clusterID, now)
	if err != nil {
		return err
	}
	m := &e.Material
	m.TransportKey, m.TransportCACert, e.TransportSerial = der, ca.Cert.Raw, in.Serial.Text(16)
	m.TransportCert, err = ca.SignEnrolled(key.Public(), in)
	return err
}

// MakeIntermediate makes an authority for the machine that enrolls from an address and for what is allowed. It cannot sign
// for the members' own hosts, except for those on that machine.
func (e *Enrolling) MakeIntermediate(root certs.CA, keyType, clusterID string, now time.Time, allowed certs.Permitted, members []Member, remote string) error {
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

// newKey makes a key and the record of the certificate that is to be signed for it.
func (e *Enrolling) newKey(kind certs.Kind, keyType, clusterID string, now time.Time) (key crypto.Signer, der []byte, in certs.Enrolled, err error) {
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
