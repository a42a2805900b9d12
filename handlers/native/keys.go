package native

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"muster/api"
	"muster/certs"
	"muster/handlers"
	"muster/store"
)

// listGenerations lists the generations of the data-encryption key and the progress of re-encryption.
func (s *service) listGenerations(q *handlers.Request) error {
	list, err := s.Keys.Generations(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	out := make([]api.Generation, len(list))
	for i, g := range list {
		out[i] = api.Generation{
			Generation: g.Generation,
			State:      g.State,
			Reason:     g.Reason,
			CreatedAt:  api.Time(g.CreatedAt),
			Holders:    g.Holders,
			Total:      g.Total,
			Remaining:  g.Remaining,
		}
	}
	return q.Result(http.StatusOK, out)
}

// rotateDEK makes a new generation and, with maxAgeSeconds, sets the age of automatic rotation.
func (s *service) rotateDEK(q *handlers.Request) error {
	var age int64
	var setAge bool
	if len(q.Content) > 0 {
		f, err := handlers.ParseFields(q.Content)
		if err != nil {
			return err
		}
		setAge = f.Has("maxAgeSeconds")
		age = f.Integer("maxAgeSeconds", false, 0, 10*366*86400)
		if err := f.End(); err != nil {
			return err
		}
		if age > 0 && age < 3600 {
			return handlers.Fail(http.StatusBadRequest, "maxAgeSeconds must be 0 (never) or at least 3600")
		}
	}
	if setAge {
		actor := q.Actor
		actor.IdempotencyKey = "" // the key is for the rotation; setting the same age twice is harmless
		if err := s.Settings.SetDEKMaxAge(q.Context(), actor, time.Duration(age)*time.Second); err != nil {
			return err
		}
	}
	r, err := s.Keys.PrepareDEKRotation(q.Context(), 0, nil)
	if err != nil {
		return err
	}
	n, err := s.Keys.RotateDEK(q.Context(), q.Actor, r, "on demand")
	if err != nil {
		return err
	}
	s.Cluster.Wake()
	return q.Result(http.StatusOK, struct {
		Generation uint64 `json:"generation"`
	}{n})
}

const (
	defaultKeyGrace = 7 * 86400  // seconds
	maxKeyGrace     = 90 * 86400 // seconds
)

// rotateJoinKeys makes a new epoch of the keys that sign join tokens; older tokens stay valid for the grace period.
func (s *service) rotateJoinKeys(q *handlers.Request) error {
	grace := int64(defaultKeyGrace)
	if len(q.Content) > 0 {
		f, err := handlers.ParseFields(q.Content)
		if err != nil {
			return err
		}
		if f.Has("graceSeconds") {
			grace = f.Integer("graceSeconds", false, 0, maxKeyGrace)
		}
		if err := f.End(); err != nil {
			return err
		}
	}
	keys, err := store.NewKeys(store.KeyJoinHMAC, store.KeyJoinSigning)
	if err != nil {
		return err
	}
	done, err := s.Keys.Rotate(q.Context(), q.Actor, keys, s.Now().Add(time.Duration(grace)*time.Second))
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK,
		api.JoinKeys{KIDs: done.KIDs, GraceUntil: api.Time(done.GraceUntil), TokensEnded: done.TokensEnded})
}

func showSecret(x *store.StoredSecret) api.SecretInfo {
	return api.SecretInfo{
		Name:       x.Name,
		Version:    x.Version,
		Generation: x.Generation,
		CreatedAt:  api.Time(x.CreatedAt),
		UpdatedAt:  api.Time(x.UpdatedAt),
	}
}

var secretName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

const maxSecret = 64 << 10

func secretNameOf(q *handlers.Request) (string, error) {
	name := q.Vars()["name"]
	if !secretName.MatchString(name) {
		return "", handlers.Fail(http.StatusBadRequest,
			"name must be 1 to 128 letters, digits, dots, dashes and underscores, beginning with a letter or digit")
	}
	return name, nil
}

func (s *service) putSecret(q *handlers.Request) error {
	name, err := secretNameOf(q)
	if err != nil {
		return err
	}
	value, err := parseSecret(q.Content)
	if err != nil {
		return err
	}
	x, err := s.Secrets.Put(q.Context(), q.Actor, name, value)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if x.Version == 1 {
		status = http.StatusCreated
	}
	return q.Result(status, showSecret(&x))
}

// parseSecret reads the value of a secret.
func parseSecret(body []byte) ([]byte, error) {
	f, err := handlers.ParseFields(body)
	if err != nil {
		return nil, err
	}
	var text string
	f.Get("value", true, "a string", &text)
	encoding := f.Text("encoding", false, 1, 16)
	if err := f.End(); err != nil {
		return nil, err
	}
	// encoding/json replaces invalid Unicode by U+FFFD; a secret must be returned unchanged.
	if strings.ContainsRune(text, utf8.RuneError) && !bytes.Contains(body, []byte("\uFFFD")) &&
		!bytes.Contains(bytes.ToLower(body), []byte(`\ufffd`)) {
		return nil, handlers.Fail(http.StatusBadRequest, "value must be Unicode text; use encoding base64 for other bytes")
	}
	value := []byte(text)
	switch {
	case encoding == "base64":
		if value, err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, handlers.Fail(http.StatusBadRequest, "value must be standard Base64, as encoding says")
		}
	case encoding != "":
		return nil, handlers.Fail(http.StatusBadRequest, "encoding must be base64 or absent")
	}
	if len(value) > maxSecret {
		return nil, handlers.Fail(http.StatusBadRequest, "value must be at most 64 KiB")
	}
	return value, nil
}

func (s *service) getSecret(q *handlers.Request) error {
	name, err := secretNameOf(q)
	if err != nil {
		return err
	}
	x, err := s.Secrets.Get(q.Context(), store.Linearisable, name)
	if err != nil {
		return err
	}
	if x == nil {
		return handlers.Fail(http.StatusNotFound, "secret not found")
	}
	out := api.SecretValue{SecretInfo: showSecret(x), Value: string(x.Value)}
	if !utf8.Valid(x.Value) {
		out.Value, out.Encoding = base64.StdEncoding.EncodeToString(x.Value), "base64"
	}
	return q.Result(http.StatusOK, out)
}

func (s *service) listSecrets(q *handlers.Request) error {
	list, err := s.Secrets.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	out := make([]api.SecretInfo, len(list))
	for i := range list {
		out[i] = showSecret(&list[i])
	}
	return q.Result(http.StatusOK, out)
}

func (s *service) deleteSecret(q *handlers.Request) error {
	name, err := secretNameOf(q)
	if err != nil {
		return err
	}
	if err := s.Secrets.Delete(q.Context(), q.Actor, name); err != nil {
		return err
	}
	return q.Result(http.StatusOK, handlers.Message{Message: "Secret deleted"})
}

// jwks publishes the keys that verify node identities.
func (s *service) jwks(q *handlers.Request) error {
	keys, order, err := handlers.NodeKeys(q.Context(), s.Keys, s.Now())
	if err != nil {
		return err
	}
	handlers.WriteJSON(q.W, http.StatusOK, certs.JWKS(keys, order))
	return nil
}

// renewNodeToken issues a new identity to a node that authenticates with its present one.
func (s *service) renewNodeToken(q *handlers.Request) error {
	if q.Node == nil {
		return handlers.Fail(http.StatusForbidden, "only a node can renew its identity, with its present identity")
	}
	text, ends, err := s.NodeTokens.Mint(q.Context(), q.Node)
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, api.NodeToken{NodeJWT: text, ExpiresAt: api.Time(ends)})
}
