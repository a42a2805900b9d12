package datadir

import (
	"bytes"
	"crypto/x509"
	"fmt"

	"muster/certs"
	"muster/cluster/transport"
)

// Leaves are a member's certificates and authorities, PEM.
type Leaves struct {
	HTTP        []byte // the leaf first
	HTTPCA      []byte // verifies the API of other members
	Transport   []byte
	TransportCA []byte
}

// certFiles are the file names of one kind of certificate.
type certFiles struct{ key, cert, ca string }

func filesOf(kind certs.Kind) certFiles {
	if kind == certs.Transport {
		return certFiles{transportKey, transportCert, transportCA}
	}
	return certFiles{httpKey, httpCert, httpCAFile}
}

// Load makes a member's transport use the certificate and the authorities in the directory.
func (d *Dir) Load(into *transport.Credentials) error {
	f, err := d.transportFiles()
	if err != nil {
		return err
	}
	return into.Replace(f[0], f[1], f[2])
}

// transportFiles reads certificate, key and authorities of the cluster listener.
func (d *Dir) transportFiles() (files [3][]byte, err error) {
	for i, name := range []string{transportCert, transportKey, transportCA} {
		if files[i], err = d.read(name); err != nil {
			return files, dirError(d.Path, err)
		}
	}
	return files, nil
}

// Install writes new leaves after into has accepted the one for the cluster listener; otherwise it writes nothing.
func (d *Dir) Install(l Leaves, into *transport.Credentials) error {
	key, err := d.read(transportKey)
	if err != nil {
		return dirError(d.Path, err)
	}
	if err := into.Replace(l.Transport, key, l.TransportCA); err != nil {
		return err
	}
	return d.writeLeaves(l)
}

func (d *Dir) writeLeaves(l Leaves) error {
	for _, f := range []struct {
		name string
		data []byte
	}{{httpCert, l.HTTP}, {httpCAFile, l.HTTPCA}, {transportCert, l.Transport}, {transportCA, l.TransportCA}} {
		if err := d.write(f.name, f.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// InstallAuthorities writes the trusted authorities of a kind, PEM, the issuer first.
func (d *Dir) InstallAuthorities(kind certs.Kind, bundle []byte) error {
	return d.rewrite(filesOf(kind).ca, bundle)
}

// rewrite writes a file if its content differs.
func (d *Dir) rewrite(name string, data []byte) error {
	if old, err := d.read(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return d.write(name, data, 0o644)
}

// Rechain replaces the authorities behind a leaf in its file. It returns false, and changes nothing, when the issuer,
// the first of bundle, is not the leaf's own.
func (d *Dir) Rechain(kind certs.Kind, chain, bundle []byte) (own bool, err error) {
	name := filesOf(kind).cert
	data, err := d.read(name)
	if err != nil {
		return false, dirError(d.Path, err)
	}
	list, err := certs.ParseCerts(data)
	if err != nil {
		return false, nil // to be renewed
	}
	issuers, err := certs.ParseCerts(bundle)
	if err != nil {
		return false, fmt.Errorf("the leader's answer cannot be used: %w", err)
	}
	if !(certs.CA{Cert: issuers[0]}).Issued(list[0]) {
		return false, nil
	}
	return true, d.rewrite(name, append(certs.EncodeCert(list[0].Raw), chain...))
}

// Leaf reads the member's certificate of a kind.
func (d *Dir) Leaf(kind certs.Kind) (*x509.Certificate, error) {
	return d.firstCert(filesOf(kind).cert)
}

// EndsWithCA reports whether a leaf of a kind expires together with the issuing authority.
func (d *Dir) EndsWithCA(kind certs.Kind, leaf *x509.Certificate) bool {
	ca, err := d.firstCert(filesOf(kind).ca)
	return err == nil && !leaf.NotAfter.Before(ca.NotAfter)
}

// firstCert reads the first certificate of a file: the leaf of a chain, or the issuer of a bundle.
func (d *Dir) firstCert(name string) (*x509.Certificate, error) {
	data, err := d.read(name)
	if err != nil {
		return nil, err
	}
	list, err := certs.ParseCerts(data)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// WorkloadsFile returns the path of the certificates and keys of software on this machine.
func (d *Dir) WorkloadsFile() string { return d.file(workloadsFile) }

// NodeToken reads DIR/node.jwt, the identity for software on the member's machine.
func (d *Dir) NodeToken() (string, error) {
	data, err := d.read(nodeTokenFile)
	return string(bytes.TrimSpace(data)), err
}

// SaveNodeToken writes DIR/node.jwt.
func (d *Dir) SaveNodeToken(jwt string) error { return d.write(nodeTokenFile, []byte(jwt+"\n"), 0o600) }
