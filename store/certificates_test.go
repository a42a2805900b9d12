package store

import (
	"testing"

	"muster/certs"
)

// What is in use and ends within 30 days is warned of once: not what has been replaced, nor what ends with its
// authority.
func TestExpiryIsWarnedOfOnce(t *testing.T) {
	m := newRotationModel(t)
	issue := func(node uint64, kind certs.Kind, days int) {
		c := NewCertificate(kind, m.now)
		c.NodeID, c.ExpiresAt = node, m.now.AddDate(0, 0, days)
		if _, err := m.write(func(tx *Tx) error { return tx.insertCertificate(c) }); err != nil {
			t.Fatal(err)
		}
	}
	issue(1, certs.HTTP, 20)
	issue(2, certs.HTTP, 20)
	issue(2, certs.HTTP, 90) // renewed
	issue(3, "enrollment", 1)
	warn := func() (warned []string) {
		t.Helper()
		if _, err := m.write(func(tx *Tx) error {
			list, err := tx.warnOfExpiry()
			for i := range list {
				warned = append(warned, list[i].String())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return warned
	}
	if got := warn(); len(got) != 1 || got[0] != "the http certificate of node 1" {
		t.Errorf("warned of %q", got)
	}
	if got := warn(); got != nil {
		t.Errorf("warned again of %q", got)
	}
	m.now = m.now.AddDate(9, 11, 20) // the authorities have 10 years
	if got := warn(); len(got) != 2+1+3 {
		t.Errorf("after most of ten years, warned of %q", got)
	}
	issue(1, certs.Transport, 90) // ends with its authority
	if got := warn(); got != nil {
		t.Errorf("warned of %q", got)
	}
	list, err := m.view().expiries()
	if err != nil || len(list) != 2+2+3 {
		t.Errorf("%d things are in use: %+v, %v", len(list), list, err)
	}
	for _, e := range list {
		if e.Kind == "http" && e.NodeID == 2 && e.DaysLeft(m.now) > -3000 {
			t.Errorf("%v has %v days left", &e, e.DaysLeft(m.now))
		}
	}
	var rows int
	if _, err := m.view().get("SELECT count(*) FROM audit WHERE action = 'certificate.expiring'", nil,
		&rows); err != nil || rows != 7 {
		t.Errorf("%d rows in the audit, %v", rows, err)
	}
}
