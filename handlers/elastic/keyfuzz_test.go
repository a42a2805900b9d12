package elastic

import (
	"encoding/json"
	"testing"

	"muster/handlers"
	"muster/handlers/internal/handlerstest"
	"muster/store"
)

// FuzzKeyRequest feeds bodies that create API keys: no key may more than its maker.
func FuzzKeyRequest(f *testing.F) {
	f.Add([]byte(`{"name":"a","expiration":"1d","role_descriptors":{"r":{"cluster":["all","monitor"]}},` +
		`"metadata":{"a":1}}`))
	f.Add([]byte(`{"name":"a","role_descriptors":{"r":null},"metadata":{"_a":1}}`))
	f.Add([]byte(`{"name":"a","expiration":"9223372036854775807d"}`))
	f.Add([]byte(`{"Name":"a","name":"\u0000"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		q := &handlers.Request{Content: body, Token: &store.APIToken{Scopes: []string{store.ScopeClusterRead}}}
		k, ttl, err := keyRequest(q)
		if err != nil {
			handlerstest.RefusedWell(t, err)
			return
		}
		for _, scope := range k.Scopes {
			if !q.Token.Allows(scope) {
				t.Fatalf("the key may %s", scope)
			}
		}
		if ttl < 0 || checkKeyName(k.Name) != nil || k.Metadata != nil && !json.Valid(k.Metadata) {
			t.Fatalf("accepted %+v for %v", k, ttl)
		}
	})
}
