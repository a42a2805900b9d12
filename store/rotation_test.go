package store

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/certs"
)

// rotationModel is a cluster whose members put the trust into effect when they please.
type rotationModel struct {
	*bench
	store   *Store
	members []*trustee
	first   []byte // the CA that was active when the rotation began, for a client that knows nothing else
	second  []byte // the other one, once every member presents what verifies with it

	verified map[string]error // answers of verifies
}

// trustee is what one member has in its files, and what it has been told and not finished.
type trustee struct {
	id            uint64
	bundle, chain []byte
	leaf          *x509.Certificate
	applied       uint64
	doc           *Issuer
	docRev        uint64
}

func newRotationModel(t testing.TB) *rotationModel {
	b := newBench(t, migratedDB(t))
	identity, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	dek := certs.NewDEK()
	f := testFounding(t, identity)
	f.ClusterID = "0f5b8c1e-7a2d-4e6f-9b3c-5d8e1f2a3b4c"
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		ca, err := certs.NewCA(kind, f.ClusterID, b.now)
		if err != nil {
			t.Fatal(err)
		}
		key, _ := certs.EncodeKey(ca.Key)
		sealed, err := dek.Seal(AuthoritySecret(kind, 1), 1, key)
		if err != nil {
			t.Fatal(err)
		}
		f.Authorities = append(f.Authorities,
			SealedAuthority{Kind: kind, CertPEM: string(certs.EncodeCert(ca.Cert.Raw)), SealedKey: sealed,
				ExpiresAt: ca.Cert.NotAfter})
	}
	if _, err := b.write(f.apply); err != nil {
		t.Fatal(err)
	}
	m := &rotationModel{bench: b, store: &Store{keys: keyring{deks: map[uint64]certs.DEK{1: dek}, active: 1}},
		verified: map[string]error{}}
	for id := uint64(1); id <= 3; id++ {
		x := &trustee{id: id}
		if _, err := b.write(func(tx *Tx) error {
			if id > 1 {
				row := f.Member
				row.NodeID, row.ID, row.Recipient = id, fmt.Sprint(id), ""
				if err := tx.insertMember(&row, hostGrants{}); err != nil {
					return err
				}
			}
			c := NewCertificate(certs.Transport, b.now)
			c.NodeID = id
			return tx.insertCertificate(c)
		}); err != nil {
			t.Fatal(err)
		}
		m.tell(x)
		m.finish(x)
		m.members = append(m.members, x)
	}
	return m
}

func (m *rotationModel) view() *View { return view(m.s.View(m.now)) }

func (m *rotationModel) issuer() (Issuer, uint64) {
	i, err := m.view().issuer(&m.store.keys, certs.HTTP)
	if err != nil {
		m.t.Fatal(err)
	}
	rev, err := m.view().trustRevision()
	if err != nil {
		m.t.Fatal(err)
	}
	return i, rev
}

// tell is the first half of what a member does: it gets the trust and accepts it.
func (m *rotationModel) tell(x *trustee) {
	i, rev := m.issuer()
	x.doc, x.docRev, x.bundle = &i, rev, i.Bundle
}

// finish is the second half: it presents what goes with its leaf, or gets a new leaf from who issues by then.
func (m *rotationModel) finish(x *trustee) {
	if x.doc == nil {
		return
	}
	if x.leaf != nil && x.doc.Issued(x.leaf) {
		x.chain = x.doc.Chain
	} else {
		i, _ := m.issuer()
		key, err := certs.NewKey()
		if err != nil {
			m.t.Fatal(err)
		}
		c := NewCertificate(certs.HTTP, m.now)
		c.NodeID = x.id
		der, err := c.Sign(i.CA, key.Public(), "0f5b8c1e-7a2d-4e6f-9b3c-5d8e1f2a3b4c", "x", nil)
		if err != nil {
			m.t.Fatal(err)
		}
		x.leaf, _ = x509.ParseCertificate(der)
		x.chain, x.bundle = i.Chain, i.Bundle
	}
	x.applied, x.doc = x.docRev, nil
}

func (m *rotationModel) installed() Installed {
	_, rev := m.issuer()
	in := Installed{Revision: rev, Nodes: map[uint64]bool{}}
	for _, x := range m.members {
		if x.applied >= rev {
			in.Nodes[x.id] = true
		}
	}
	return in
}

// verifies is accepts, with a memory: most of what is asked after a step was asked before it.
func (m *rotationModel) verifies(bundle []byte, x *trustee) error {
	question := fmt.Sprintf("%s\n%s\n%x\n%d", bundle, x.chain, x.leaf.Raw, m.now.Unix())
	err, known := m.verified[question]
	if !known {
		err = m.accepts(bundle, x)
		m.verified[question] = err
	}
	return err
}

// accepts reports whether who trusts a bundle accepts what a member presents, with Go's verifier and by the pin.
func (m *rotationModel) accepts(bundle []byte, x *trustee) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	list, err := certs.ParseCerts(x.chain)
	if err != nil {
		return err
	}
	raw := [][]byte{x.leaf.Raw}
	for _, c := range list {
		between.AddCert(c)
		raw = append(raw, c.Raw)
	}
	if _, err := x.leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: m.now}); err != nil {
		return err
	}
	own, err := certs.ParseCerts(bundle)
	if err != nil || len(own) > 1 {
		return err
	}
	return certs.VerifyPinned(raw, certs.Fingerprint(own[0].Raw), m.now)
}

// Whatever operators ask for and however slow members are: members accept each other, clients that know the first CA
// alone accept every member until it is dropped, and clients that know the second alone from the end of the first phase
// on.
func TestRotationKeepsTrust(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := newRotationModel(t)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			x := rapid.SampledFrom(m.members).Draw(rt, "member")
			before, err := m.view().caRotation(certs.HTTP)
			if err != nil {
				rt.Fatal(err)
			}
			step := rapid.SampledFrom([]string{"tell", "finish", "tell", "finish", "both", "both", "advance", "advance", "wait",
				CAStart, CAContinue, CARollback, CADrop}).Draw(rt, "step")
			switch step {
			case "tell":
				m.tell(x)
			case "finish":
				m.finish(x)
			case "both":
				for _, x := range m.members {
					m.tell(x)
					m.finish(x)
				}
			case "wait":
				m.now = m.now.Add(time.Hour)
			case "advance":
				if _, err := m.write(func(tx *Tx) error { _, err := tx.advanceCA(m.installed()); return err }); err != nil {
					rt.Fatal(err)
				}
			default:
				first, _ := m.issuer()
				in := m.installed()
				_, err := m.write(func(tx *Tx) error {
					out, err := Authorities{m.store}.changeCA(tx,
						CARequest{Kinds: []certs.Kind{certs.HTTP}, Action: step, Installed: in})
					if text := strings.Join(append(out.Steps, out.Warnings...), "\n"); strings.Contains(text, "%!") {
						rt.Errorf("%s says %q", step, text)
					}
					return err
				})
				var refusal *Refusal
				if errors.As(err, &refusal) {
					if step == CAStart && before == nil {
						rt.Fatalf("start is refused: %v", err)
					}
				} else if err != nil {
					rt.Fatal(err)
				} else if step == CAStart {
					m.first, m.second = slices.Clone(first.Bundle), nil
				}
			}
			m.check(rt, before)
		}
	})
}

func (m *rotationModel) check(rt *rapid.T, before *CARotation) {
	r, err := m.view().caRotation(certs.HTTP)
	if err != nil {
		rt.Fatal(err)
	}
	list, err := m.view().inUse(certs.HTTP)
	if err != nil {
		rt.Fatal(err)
	}
	if (len(list) == 2) != (r != nil) {
		rt.Fatalf("%d authorities are in use and the rotation is %+v", len(list), r)
	}
	switch {
	case r == nil:
		m.first, m.second = nil, nil
	case before != nil && before.Phase == PhaseTrust && r.Phase != PhaseTrust:
		m.second = ownPEM(&list[0])
	}
	for _, x := range m.members {
		for _, y := range m.members {
			if err := m.verifies(y.bundle, x); err != nil {
				rt.Fatalf("node %d does not accept node %d: %v", y.id, x.id, err)
			}
		}
		for what, ca := range map[string][]byte{"first": m.first, "second": m.second} {
			if ca != nil {
				if err := m.verifies(ca, x); err != nil {
					rt.Fatalf("who knows the %s CA does not accept node %d in %+v: %v", what, x.id, r, err)
				}
			}
		}
	}
	open, err := m.view().get("SELECT 1 FROM authorities WHERE state = 'retired' AND (length(sealed_key) > 0 OR "+
		"cross_pem <> '')", nil, new(int))
	if err != nil || open {
		rt.Fatalf("a retired authority keeps its key: %v", err)
	}
}
