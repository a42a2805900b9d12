package datadir

import (
	"errors"
	"fmt"
	"os"

	"muster/certs"
	"muster/cluster/transport"
)

// JoinKeys are the keys of a machine that joins. They stay in its directory: an interrupted join is repeated with the
// same keys and gets the same identity.
type JoinKeys struct {
	SecretsPubkey [32]byte
	HTTPCSR       []byte // DER
	TransportCSR  []byte // DER

	fresh bool // made just now: no join with them was sent
}

// Abandon removes the keys of a rejected join, unless an earlier join with them may have succeeded.
func (k *JoinKeys) Abandon(d *Dir) {
	if k.fresh {
		AbandonJoin(d)
	}
}

// PrepareJoin makes the keys, or reads those of an interrupted join.
func PrepareJoin(d *Dir, name string) (*JoinKeys, error) {
	_, statErr := os.Stat(d.file(identityFile))
	identity, err := d.Identity()
	if err != nil {
		return nil, err
	}
	k := &JoinKeys{fresh: errors.Is(statErr, os.ErrNotExist)}
	if k.SecretsPubkey, err = certs.PublicKey(identity.Recipient().String()); err != nil {
		return nil, err
	}
	if err := d.dropDamagedKey(httpKey); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		file string
		csr  *[]byte
	}{{httpKey, &k.HTTPCSR}, {transportKey, &k.TransportCSR}} {
		key, err := d.key(c.file)
		if err != nil {
			return nil, err
		}
		if *c.csr, err = certs.NewCSR(key, name); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// AbandonJoin removes the keys of a rejected join, which leaves the directory empty.
func AbandonJoin(d *Dir) {
	for _, name := range []string{identityFile, httpKey, transportKey, httpCert, transportCert, transportCA, httpCAFile} {
		_ = os.Remove(d.file(name))
	}
}

// Admission is the cluster's answer to a join.
type Admission struct {
	Node Node
	Leaves
}

// CompleteJoin writes the files that the member needs to start. node.json comes last, so that after a crash the same
// join can be repeated.
func CompleteJoin(d *Dir, a Admission) error {
	key, err := d.read(transportKey)
	if err != nil {
		return dirError(d.Path, err)
	}
	if _, err := transport.NewCredentials(a.Node.ClusterID, a.Node.NodeID, a.Transport, key, a.TransportCA); err != nil {
		return fmt.Errorf("the cluster's answer cannot be used: %w", err)
	}
	if len(a.HTTP) == 0 || len(a.HTTPCA) == 0 {
		return errors.New("the cluster's answer cannot be used: it has no certificate for the API")
	}
	if err := d.writeLeaves(a.Leaves); err != nil {
		return err
	}
	if known, err := d.Node(); err == nil && known == nil {
		for _, name := range []string{foundingFile, adminFile} { // of an interrupted founding
			_ = os.Remove(d.file(name))
		}
	}
	return d.SaveNode(&a.Node)
}
