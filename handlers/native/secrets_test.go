package native_test

import (
	"fmt"
	"strings"
	"testing"

	"muster/api"
	"muster/handlers/internal/sole"
)

// keyRefusal is a request about secrets and keys, below /api/v1/cluster/, and why it is refused.
type keyRefusal struct {
	method, path, body string
	status             int
	want               string
}

func keyRefusals() []keyRefusal {
	long := strings.Repeat("n", 129)
	const nameRule = "name must be 1 to 128 letters, digits, dots, dashes and underscores, beginning with a letter or " +
		"digit"
	return []keyRefusal{
		{"PUT", "secrets/x", ``, 400, "the body must be a JSON object"},
		{"PUT", "secrets/x", `{`, 400, "the body must be a JSON object"},
		{"PUT", "secrets/x", `null`, 400, "the body must be a JSON object"},
		{"PUT", "secrets/x", `["v"]`, 400, "the body must be a JSON object"},
		{"PUT", "secrets/x", `{}`, 400, "value is required"},
		{"PUT", "secrets/x", `{"value":null}`, 400, "value is required"},
		{"PUT", "secrets/x", `{"value":1}`, 400, "value must be a string"},
		{"PUT", "secrets/x", `{"value":["a"]}`, 400, "value must be a string"},
		{"PUT", "secrets/x", `{"value":"!","encoding":"base64"}`, 400, "value must be standard Base64"},
		{"PUT", "secrets/x", `{"value":"_-8","encoding":"base64"}`, 400, "value must be standard Base64"},
		{"PUT", "secrets/x", `{"value":"a","encoding":"hex"}`, 400, "encoding must be base64 or absent"},
		{"PUT", "secrets/x", `{"value":"a","encoding":1}`, 400, "encoding must be a string"},
		{"PUT", "secrets/x", `{"value":"` + strings.Repeat("a", 64<<10+1) + `"}`, 400, "value must be at most 64 KiB"},
		{"PUT", "secrets/x", `{"value":"` + strings.Repeat("a", 1<<20) + `"}`, 413, "the body must not be larger than 1 MiB"},
		{"PUT", "secrets/" + long, `{"value":"a"}`, 400, nameRule},
		{"PUT", "secrets/.x", `{"value":"a"}`, 400, nameRule},
		{"PUT", "secrets/-x", `{"value":"a"}`, 400, nameRule},
		{"PUT", "secrets/a%2Fb", `{"value":"a"}`, 400, nameRule},
		{"PUT", "secrets/a%20b", `{"value":"a"}`, 400, nameRule},
		{"PUT", "secrets/%2e%2e", `{"value":"a"}`, 400, nameRule},
		{"PUT", "secrets/a%00b", `{"value":"a"}`, 400, nameRule},
		{"PUT", "secrets/%C3%A4", `{"value":"a"}`, 400, nameRule},
		{"PUT", "secrets/a'--", `{"value":"a"}`, 400, nameRule},
		{"GET", "secrets/" + long, ``, 400, nameRule},
		{"DELETE", "secrets/a%2Fb", ``, 400, nameRule},
		{"GET", "secrets/none", ``, 404, "secret not found"},
		{"POST", "secrets/x", `{"value":"a"}`, 405, "the method POST is not allowed here"},
		{"POST", "secrets", `{}`, 405, "the method POST is not allowed here"},
		{"GET", "secrets//", ``, 404, "there is nothing at this path"},
		{"DELETE", "keys", ``, 405, "the method DELETE is not allowed here"},
		{"POST", "keys/rotate", `[]`, 400, "the body must be a JSON object"},
		{"POST", "keys/rotate", `{`, 400, "the body must be a JSON object"},
		{"POST", "keys/rotate", `{"maxAgeSeconds":"1h"}`, 400, "maxAgeSeconds must be a whole number"},
		{"POST", "keys/rotate", `{"maxAgeSeconds":-1}`, 400, "maxAgeSeconds must be a whole number"},
		{"POST", "keys/rotate", `{"maxAgeSeconds":3599}`, 400, "maxAgeSeconds must be 0 (never) or at least 3600"},
		{"POST", "keys/rotate", `{"maxAgeSeconds":99999999999}`, 400, "maxAgeSeconds must be a whole number"},
	}
}

// TestKeyRefusals: what the API of keys and secrets refuses, and who may use it.
func TestKeyRefusals(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	u.Secret("a secret's value", "kept as it is")
	u.Do("PUT", "/api/v1/cluster/secrets/db.password", `{"value":"kept as it is"}`)
	before := u.Do("GET", "/api/v1/cluster/secrets", "").Body
	for _, x := range keyRefusals() {
		what := fmt.Sprintf("%s %.60s %.40q", x.method, x.path, x.body)
		a := u.Do(x.method, "/api/v1/cluster/"+x.path, x.body)
		if a.Envelope(t, what, "ella"); a.Status != x.status || !strings.Contains(a.Body, x.want) {
			t.Errorf("%s: %d %s, want %d %q", what, a.Status, a.Body, x.status, x.want)
		}
	}
	if after := u.Do("GET", "/api/v1/cluster/secrets", "").Body; after != before {
		t.Errorf("requests that were refused have changed the secrets:\n%s\n%s", before, after)
	}
	if list := sole.Get[[]api.Generation](u, "GET", "/api/v1/cluster/keys", ""); len(list) != 1 {
		t.Errorf("requests that were refused have made generations: %+v", list)
	}
	calls := [][2]string{{"GET", "secrets"}, {"GET", "secrets/db.password"}, {"PUT", "secrets/x"},
		{"DELETE", "secrets/db.password"}, {"GET", "keys"}, {"POST", "keys/rotate"}, {"POST", "join-keys/rotate"}}
	for _, x := range calls {
		s.Nobody().Do(x[0], "/api/v1/cluster/"+x[1], "").Expect(t, x[0]+" "+x[1]+" as nobody", 401,
			`{"error":"Invalid token"}`)
		for _, scope := range []string{"cluster:read", "cluster:manage", "enroll", "peering:write"} {
			s.As(u.APIToken("for keys", scope).Token).Do(x[0], "/api/v1/cluster/"+x[1], "").Expect(t, x[0]+" "+x[1]+
				" with "+scope, 403, `{"error":"Forbidden"}`)
		}
	}
	keeper := s.As(u.APIToken("keeper", "keys:manage").Token)
	if a := keeper.Do("GET", "/api/v1/cluster/secrets/db.password", ""); a.Status != 200 {
		t.Errorf("with keys:manage: %v", a)
	}
}

// TestOddValues: an empty value is a value, and text that is not UTF-8 is refused, not changed.
func TestOddValues(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	if a := u.Do("PUT", "/api/v1/cluster/secrets/empty", `{"value":""}`); a.Status != 201 {
		t.Errorf("an empty value: %v", a)
	}
	if a := u.Do("GET", "/api/v1/cluster/secrets/empty", ""); a.Status != 200 ||
		!strings.Contains(a.Body, `"value":""`) {
		t.Errorf("an empty value reads %v", a)
	}
	for _, body := range []string{"{\"value\":\"a\xffb\"}", `{"value":"a\ud800b"}`} {
		if a := u.Do("PUT", "/api/v1/cluster/secrets/odd", body); a.Status != 400 {
			t.Errorf("%q is answered with %v", body, a)
		}
	}
}
