package elastic

import (
	"encoding/json"
	"net/http"
	"slices"

	"muster/handlers"
	"muster/store"
)

// keyQuery selects API keys.
type keyQuery struct {
	ids                   []string
	name, username, realm string
	owner, activeOnly     bool
}

// realmName is the realm of all users.
const realmName = "muster"

func (s *service) matcher(q *handlers.Request, k keyQuery) func(*store.APIKey) bool {
	now := s.Now()
	ids := make(map[string]bool, len(k.ids))
	for _, id := range k.ids {
		ids[id] = true
	}
	return func(x *store.APIKey) bool {
		own := x.OwnerID == q.Token.ID || q.Key != nil && x.ID == q.Key.ID
		return (len(ids) == 0 || ids[x.ID]) && (k.name == "" || store.NamePattern(k.name, x.Name)) &&
			(k.username == "" || k.username == x.OwnerName) && (k.realm == "" || k.realm == realmName) &&
			(!k.owner || own) && (!k.activeOnly || x.RevokedAt == nil && (x.ExpiresAt == nil || now.Before(*x.ExpiresAt)))
	}
}

// ownOnly rejects a query for other owners' keys by a caller without that privilege.
func ownOnly(q *handlers.Request, k keyQuery, action string) error {
	if k.owner || q.Token.Allows(store.ScopeManagement) || q.Key != nil && slices.Equal(k.ids, []string{q.Key.ID}) {
		return nil
	}
	return handlers.Lacks(store.ScopeManagement, unauthorizedFor(q, action, privilegesOwnKey))
}

type apiKeyInfo struct {
	ID              string          `json:"id"`
	Name            string          `json:"name"`
	Type            string          `json:"type"`
	Creation        int64           `json:"creation"`
	Expiration      int64           `json:"expiration,omitempty"`
	Invalidated     bool            `json:"invalidated"`
	Invalidation    int64           `json:"invalidation,omitempty"`
	Username        string          `json:"username"`
	Realm           string          `json:"realm"`
	RealmType       string          `json:"realm_type"`
	Metadata        json.RawMessage `json:"metadata"`
	RoleDescriptors json.RawMessage `json:"role_descriptors"`
}

// getAPIKeys lists keys, including those of enrollment tokens, without their secrets.
func (s *service) getAPIKeys(q *handlers.Request) error {
	k, err := keyQueryOf(q)
	if err != nil {
		return err
	}
	keys, err := s.APIKeys.List(q.Context(), store.Linearisable, "")
	if err != nil {
		return err
	}
	list, match := []apiKeyInfo{}, s.matcher(q, k)
	for i := range keys {
		x := &keys[i]
		if !match(x) {
			continue
		}
		list = append(list, showKey(x))
	}
	status := http.StatusOK
	if len(list) == 0 && len(k.ids) > 0 {
		status = http.StatusNotFound
	}
	writeJSON(q.W, status, struct {
		APIKeys []apiKeyInfo `json:"api_keys"`
	}{list})
	return nil
}

// keyQueryOf reads the query of a list.
func keyQueryOf(q *handlers.Request) (k keyQuery, err error) {
	query := q.URL.Query()
	k = keyQuery{name: query.Get("name"), username: query.Get("username"), realm: query.Get("realm_name")}
	if id := query.Get("id"); id != "" {
		k.ids = []string{id}
	}
	if k.owner, err = boolParam(query, "owner"); err != nil {
		return k, err
	}
	if k.activeOnly, err = boolParam(query, "active_only"); err != nil {
		return k, err
	}
	if err := checkKeyQuery(k); err != nil {
		return k, err
	}
	return k, ownOnly(q, k, actionGetKey)
}

func showKey(x *store.APIKey) apiKeyInfo {
	info := apiKeyInfo{
		ID:              x.ID,
		Name:            x.Name,
		Type:            "rest",
		Creation:        x.CreatedAt.UnixMilli(),
		Invalidated:     x.RevokedAt != nil,
		Username:        x.OwnerName,
		Realm:           realmName,
		RealmType:       realmName,
		Metadata:        x.Metadata,
		RoleDescriptors: x.RoleDescriptors,
	}
	if x.ExpiresAt != nil {
		info.Expiration = x.ExpiresAt.UnixMilli()
	}
	if x.RevokedAt != nil {
		info.Invalidation = x.RevokedAt.UnixMilli()
	}
	return info
}

func checkKeyQuery(k keyQuery) error {
	for _, x := range []struct{ field, text string }{{"name", k.name}, {"username", k.username}, {"realm_name", k.realm}} {
		if len(x.text) > handlers.MaxParameterBytes {
			return illegalArgument("%s must be at most %d bytes long", x.field, handlers.MaxParameterBytes)
		}
	}
	long := func(id string) bool { return len(id) > handlers.MaxParameterBytes }
	switch {
	case len(k.ids) > handlers.MaxListed:
		return illegalArgument("ids must be at most %d", handlers.MaxListed)
	case slices.ContainsFunc(k.ids, long):
		return illegalArgument("an id must be at most %d bytes long", handlers.MaxParameterBytes)
	case len(k.ids) > 0 && (k.username != "" || k.realm != ""):
		return invalidRequest("username or realm name must not be specified when the api key id or api key name is specified")
	case k.owner && (k.username != "" || k.realm != ""):
		return invalidRequest("neither username nor realm-name may be specified when retrieving owned API keys")
	case len(k.ids) > 0 && k.name != "":
		return invalidRequest("only one of [api key id, api key name] can be specified")
	}
	return nil
}

// invalidateAPIKeys invalidates keys. Software enrolled with them stays enrolled; muster's own endpoint revokes it too.
func (s *service) invalidateAPIKeys(q *handlers.Request) error {
	k, err := keyRevocation(q)
	if err != nil {
		return err
	}
	revoked, err := s.APIKeys.Revoke(q.Context(), q.Actor, s.matcher(q, k), false)
	if err != nil {
		return err
	}
	writeJSON(q.W, http.StatusOK, struct {
		Now    []string `json:"invalidated_api_keys"`
		Before []string `json:"previously_invalidated_api_keys"`
		Errors int      `json:"error_count"`
	}{append([]string{}, revoked.Now...), append([]string{}, revoked.Before...), 0})
	return nil
}

// keyRevocation reads the query of an invalidation.
func keyRevocation(q *handlers.Request) (k keyQuery, err error) {
	const parser = "invalidate_api_key"
	m, err := strictObject(q.Content, parser, "id", "ids", "name", "owner", "username", "realm_name")
	if err != nil {
		return k, err
	}
	var id string
	for name, v := range map[string]any{"id": &id, "ids": &k.ids, "name": &k.name, "owner": &k.owner,
		"username": &k.username, "realm_name": &k.realm} {
		if err := field(m, parser, name, v); err != nil {
			return k, err
		}
	}
	switch {
	case id != "" && len(k.ids) > 0:
		return k, invalidRequest("Must use either [id] or [ids], not both at the same time")
	case id != "":
		k.ids = []string{id}
	case slices.Contains(k.ids, ""), m["ids"] != nil && len(k.ids) == 0:
		return k, invalidRequest("Field [ids] cannot be empty or contain blank id")
	}
	if len(k.ids) == 0 && k.name == "" && k.username == "" && k.realm == "" && !k.owner {
		return k, invalidRequest("One of [api key id(s), api key name, username, realm name] must be specified " +
			"if [owner] flag is false")
	}
	if err := checkKeyQuery(k); err != nil {
		return k, err
	}
	return k, ownOnly(q, k, actionInvalidateKey)
}
