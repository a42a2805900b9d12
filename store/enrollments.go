package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"muster/certs"
)

// Kinds of enrollments, and of their certificates.
const (
	EnrollNode   = "node"
	EnrollKibana = "kibana"

	CertEnrolled     certs.Kind = "enrolled"          // a transport certificate of other software
	CertIntermediate certs.Kind = "http-intermediate" // an intermediate CA for the HTTP layer
)

// Enrollment is the record of key material issued to other software.
type Enrollment struct {
	ID              string
	Kind            string
	KeyID           string // the API key that was used; empty for an API token
	EnrolledBy      string
	Remote          string
	TransportSerial string // lower hex
	HTTPCASerial    string // lower hex; empty when the root's key was issued
	ServiceTokenID  string // the API token issued to a Kibana
	EnrolledAt      time.Time
	ExpiresAt       time.Time // of the issued material
	RevokedAt       *time.Time
}

// issued describes the issued material, for an audit row.
func (e *Enrollment) issued() string {
	switch {
	case e.Kind == EnrollKibana:
		return "api_token/" + e.ServiceTokenID
	case e.HTTPCASerial == "":
		return "certificate " + e.TransportSerial + ", the key of the HTTP authority"
	}
	return "certificate " + e.TransportSerial + ", intermediate HTTP authority " + e.HTTPCASerial
}

// State returns the enrollment's state in one word.
func (e *Enrollment) State(now time.Time) string {
	switch {
	case e.RevokedAt != nil:
		return "revoked"
	case !now.Before(e.ExpiresAt):
		return "expired"
	default:
		return "valid"
	}
}

// Material is the key material of one enrollment, all in DER. It is stored only sealed, for a repetition with the same
// Idempotency-Key.
type Material struct {
	TransportKey    []byte // PKCS#8
	TransportCert   []byte
	TransportCACert []byte
	HTTPCAKey       []byte // PKCS#8, of an intermediate CA; nil when it is the root's
	HTTPCACert      []byte
	ServiceToken    APIToken // with its secret
	NodesAddresses  []string // of the cluster listeners, host:port
}

// Enrolling is an enrollment with its prepared material.
type Enrolling struct {
	Enrollment
	Certificates []Certificate
	Material     Material
	Replay       bool // a repeated request: nothing was prepared
}

const selectEnrollments = `SELECT id, kind, key_id, enrolled_by, remote, coalesce(transport_serial, ''),
	coalesce(http_ca_serial, ''),
	coalesce(service_token_id, ''), enrolled_at, expires_at, revoked_at FROM enrollments`

func scanEnrollment(rows *sql.Rows) (e Enrollment, err error) {
	var at, expires string
	var revoked sql.NullString
	err = rows.Scan(&e.ID, &e.Kind, &e.KeyID, &e.EnrolledBy, &e.Remote, &e.TransportSerial, &e.HTTPCASerial,
		&e.ServiceTokenID, &at, &expires, &revoked)
	e.EnrolledAt, e.ExpiresAt, e.RevokedAt = parseTime(at), parseTime(expires), nullTime(revoked)
	return e, err
}

// Enroll consumes one use of the key, if there is one, and records the enrollment, in one transaction: a refused
// enrollment consumes nothing. A refusal with code Unauthorized says why the key is invalid.
func (en Enrollments) Enroll(ctx context.Context, actor Actor, e Enrolling) (Enrolling, error) {
	return makeOnceUnless(ctx, en.s, actor, (*Tx).enrolledAgain, func(tx *Tx) (Enrolling, error) {
		if e.Replay {
			return e, refuse(Conflict,
				"the answer for this Idempotency-Key has expired; repeat the request with another key")
		}
		if err := tx.boundEnrollments(); err != nil {
			return e, err
		}
		e.EnrolledAt, e.EnrolledBy, e.Remote = tx.Now, actor.String(), actor.Remote
		if e.KeyID != "" {
			if err := tx.useAPIKey(e.KeyID); err != nil {
				return e, err
			}
		}
		for _, c := range e.Certificates {
			if err := tx.exec("INSERT INTO certificates (serial, kind, issued_at, expires_at, created_rev) "+
				"VALUES (?, ?, ?, ?, ?)",
				c.Serial, string(c.Kind), c.IssuedAt, c.ExpiresAt, tx.Rev); err != nil {
				return e, err
			}
		}
		if t := &e.Material.ServiceToken; t.ID != "" {
			scopes, err := json.Marshal(t.Scopes)
			if err != nil {
				return e, err
			}
			t.CreatedAt, t.CreatedBy, e.ServiceTokenID = tx.Now, actor.String(), t.ID
			if err := tx.exec(insertAPIToken, t.ID, t.Name, t.SecretHash, string(scopes), t.CreatedBy, t.CreatedAt, t.ExpiresAt,
				int64(tx.Rev)); err != nil {
				return e, err
			}
		}
		if err := tx.exec(`INSERT INTO enrollments (id, kind, key_id, enrolled_by, remote, transport_serial, http_ca_serial,
			service_token_id,
			enrolled_at, expires_at, created_rev, modified_rev) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			e.ID, e.Kind, e.KeyID, e.EnrolledBy, e.Remote, optional(e.TransportSerial), optional(e.HTTPCASerial),
			optional(e.ServiceTokenID),
			e.EnrolledAt, e.ExpiresAt, tx.Rev, tx.Rev); err != nil {
			return e, err
		}
		return e, tx.audit("enrollment."+e.Kind, enrollmentObject(e.ID), e.issued())
	})
}

// enrolledAgain checks whether a repeated request may get its first answer.
func (t *Tx) enrolledAgain(old *Enrolling) error {
	if old.KeyID != "" {
		k, err := t.apiKey(old.KeyID)
		switch {
		case err != nil:
			return err
		case k == nil:
			return refuse(Unauthorized, "unable to find apikey with id %s", old.KeyID)
		case k.Refusal(t.Now) != "":
			return refuse(Unauthorized, "%s", k.Refusal(t.Now))
		}
	}
	list, err := collect(&t.View, scanEnrollment, selectEnrollments+" WHERE id = ?", old.ID)
	if err != nil {
		return err
	}
	if len(list) == 0 || list[0].RevokedAt != nil {
		return refuse(Forbidden,
			"the enrollment of this request has been revoked; an Idempotency-Key does not restore it")
	}
	values, err := t.settings()
	if err != nil {
		return err
	}
	switch {
	case string(values[SettingEnrollment]) != "true":
		return refuse(Forbidden, "enrollment is no longer enabled")
	case old.Kind == EnrollNode && old.HTTPCASerial == "" && string(values[SettingEnrollmentHTTPCA]) != quote(HTTPCARoot):
		return refuse(Forbidden,
			"the key of the HTTP authority is no longer handed out; enroll with another enrollment token")
	}
	return nil
}

func enrollmentObject(id string) string { return "enrollment/" + id }

func (t *Tx) useAPIKey(id string) error {
	k, err := t.apiKey(id)
	switch {
	case err != nil:
		return err
	case k == nil:
		return refuse(Unauthorized, "unable to find apikey with id %s", id)
	case k.Refusal(t.Now) != "":
		return refuse(Unauthorized, "%s", k.Refusal(t.Now))
	case k.UsedUp():
		return refuse(Unauthorized, "%s", k.Used())
	}
	// When a batch has several uses of one key, only the last count goes to dqlite.
	return t.execLast("api_key/"+k.ID, "UPDATE api_keys SET uses = ?, modified_rev = ? WHERE id = ?", k.Uses+1, t.Rev,
		k.ID)
}

// List lists the enrollments by time.
func (en Enrollments) List(ctx context.Context, c Consistency) (list []Enrollment, err error) {
	err = en.s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, scanEnrollment, selectEnrollments+" ORDER BY enrolled_at, id")
		return err
	})
	return list, err
}

// Revoke marks the certificates of an enrollment as revoked and deletes its service token. Revoking twice is not an
// error.
func (en Enrollments) Revoke(ctx context.Context, actor Actor, id string) error {
	return doOnce(ctx, en.s, actor, func(tx *Tx) error {
		list, err := collect(&tx.View, scanEnrollment, selectEnrollments+" WHERE id = ?", id)
		switch {
		case err != nil:
			return err
		case len(list) == 0:
			return refuse(NotFound, "enrollment not found")
		case list[0].RevokedAt != nil:
			return nil
		}
		return tx.revokeEnrollment(&list[0], "")
	})
}

func (t *Tx) revokeEnrollment(e *Enrollment, cause string) error {
	if err := t.exec("UPDATE enrollments SET revoked_at = ?, modified_rev = ? WHERE id = ?", t.Now, t.Rev,
		e.ID); err != nil {
		return err
	}
	if err := t.exec("UPDATE certificates SET revoked_at = ? WHERE serial IN (?, ?) AND revoked_at IS NULL", t.Now,
		e.TransportSerial, e.HTTPCASerial); err != nil {
		return err
	}
	if e.ServiceTokenID != "" {
		if err := t.exec("DELETE FROM api_tokens WHERE id = ?", e.ServiceTokenID); err != nil {
			return err
		}
	}
	return t.audit("enrollment.revoke", enrollmentObject(e.ID), e.issued()+cause)
}

// pruneEnrollments deletes keys and enrollments that expired or were revoked before a time.
func (t *Tx) pruneEnrollments(before time.Time) (int64, error) {
	keys, err := t.execCount("DELETE FROM api_keys WHERE expires_at < ?1 OR revoked_at < ?1", before)
	if err != nil {
		return 0, err
	}
	enrollments, err := t.execCount("DELETE FROM enrollments WHERE expires_at < ?", before)
	return keys + enrollments, err
}
