package workload

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"muster/certs"
)

// The certificates are stored in a file that only this process's user can read, like the member's other keys, so that a
// member that starts without a leader can issue them until they expire.

const maxKept = 16 << 20 // bytes; more than 10 000 certificates

// keptSVID is a certificate in that file.
type keptSVID struct {
	Workload string    `json:"workload"`
	ID       string    `json:"id"`
	Chain    []byte    `json:"chain"` // DER, the leaf first
	Key      []byte    `json:"key"`   // PKCS#8, DER
	Issued   time.Time `json:"issued"`
	Renew    time.Time `json:"renew"`
	Hosts    []string  `json:"hosts,omitempty"`
}

// keep writes the certificates of a state.
func keep(path string, st *state) error {
	list := []keptSVID{}
	for id, s := range st.svids {
		list = append(list, keptSVID{id, s.id.String(), s.chain, s.key, s.issued, s.renew, s.hosts})
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return certs.WriteFile(path, text, 0o600)
}

// recall reads the file. It leaves out expired certificates, those of another cluster, and inconsistent ones. None is
// issued before the database confirms its registration.
func recall(path, clusterID string, now time.Time) (map[string]*svid, error) {
	out := map[string]*svid{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm()&0o077 != 0 || !info.Mode().IsRegular() {
		return out, errors.New("others may read or write it")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKept))
	if err != nil {
		return out, err
	}
	var list []keptSVID
	if err := json.Unmarshal(text, &list); err != nil {
		return out, err
	}
	for i := range list {
		if s := list[i].svid(clusterID, now); s != nil {
			out[list[i].Workload] = s
		}
	}
	return out, nil
}

// svid returns the certificate; nil when it is not valid.
func (k *keptSVID) svid(clusterID string, now time.Time) *svid {
	id, err := spiffeid.FromString(k.ID)
	if err != nil || id.TrustDomain().Name() != clusterID {
		return nil
	}
	chain, err := x509.ParseCertificates(k.Chain)
	if err != nil || len(chain) == 0 || !now.Before(chain[0].NotAfter) || len(chain[0].URIs) != 1 ||
		chain[0].URIs[0].String() != k.ID {
		return nil
	}
	key, err := x509.ParsePKCS8PrivateKey(k.Key)
	private, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok || !private.PublicKey.Equal(chain[0].PublicKey) {
		return nil
	}
	return &svid{
		id:     id,
		leaf:   chain[0],
		chain:  k.Chain,
		key:    k.Key,
		issued: k.Issued,
		hosts:  k.Hosts,
		renew:  k.Renew,
	}
}
