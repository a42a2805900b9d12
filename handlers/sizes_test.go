package handlers_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/consul"
	"muster/handlers/internal/sole"
	"muster/store"
)

// tooLongRequest is one that would put more into a column than it may hold.
type tooLongRequest struct {
	method, path, body string
	header             []string
	names              string // what the refusal must name
}

func object(fields ...any) string {
	m := map[string]any{}
	for i := 0; i < len(fields); i += 2 {
		m[fields[i].(string)] = fields[i+1]
	}
	return string(handlers.MustJSON(m))
}

// tooLongRequests finds for every column of store.Sizes the requests that fill it; nil for those that no request can
// fill.
func tooLongRequests(s *sole.Member) map[string][]tooLongRequest {
	w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, `{"maxUses":1000}`)
	var made struct{ Result struct{ Token string } }
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != 201 {
		s.T.Fatalf("%d %s", w.Code, w.Body)
	}
	join := func(field string, value any) tooLongRequest {
		body := map[string]any{"token": made.Result.Token, "advertise_addr": "127.0.0.1", "overlay_port": 1, "raft_port": 1,
			"wg_public_key": ""}
		body[field] = value
		return tooLongRequest{"POST", "/api/v1/cluster/join", string(handlers.MustJSON(body)),
			[]string{"Content-Type", "application/json"}, field}
	}
	token := func(field string, value any) tooLongRequest {
		return tooLongRequest{"POST", "/api/v1/cluster/join-tokens", object(field, value), nil, field}
	}
	key := func(method, field string, value any) tooLongRequest {
		return tooLongRequest{method, "/_security/api_key", object("name", "x", field, value),
			[]string{"Content-Type", "application/json"}, field}
	}
	peering := func(field string, value any) tooLongRequest {
		in := consul.PeeringToken{
			CA:                  []string{string(certs.EncodeCert(authority(s)))},
			ServerAddresses:     []string{"192.0.2.1:1"},
			ServerName:          "server.dc1.peering.x",
			PeerID:              "p",
			EstablishmentSecret: "s",
		}
		m := map[string]any{}
		_ = json.Unmarshal(handlers.MustJSON(in), &m)
		m[field] = value
		return tooLongRequest{"POST", "/v1/peering/establish",
			object("PeerName", "x", "PeeringToken", base64.StdEncoding.EncodeToString(handlers.MustJSON(m))), nil,
			"peering token"}
	}
	workload := func(field string, value any) tooLongRequest {
		return tooLongRequest{"POST", "/api/v1/workloads", object("path", "/x", "user", "x", field, value), nil, field}
	}
	text := func(table, column string) string { return strings.Repeat("x", store.MaxSize(table, column)+1) }
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint(i)] = strings.Repeat("x", 256)
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: make([]byte, 300<<10)}))
	return map[string][]tooLongRequest{
		"settings.value": {{"PUT", "/api/v1/cluster/settings", object("enrollment.key_type", text("settings", "value")), nil,
			"enrollment.key_type"},
			{"PUT", "/api/v1/cluster/settings", `{"enrollment.enabled":` + strings.Repeat(" ", 17<<10) + `"x"}`, nil,
				"enrollment.enabled"}},
		"members.name":           {join("name", text("members", "name"))},
		"members.raft_address":   {join("raft_address", text("members", "raft_address"))},
		"members.api_address":    {join("api_address", text("members", "api_address"))},
		"members.advertise_addr": {join("advertise_addr", text("members", "advertise_addr"))},
		"members.wg_public_key":  {join("wg_public_key", text("members", "wg_public_key"))},
		"members.binary_version": {join("binary_version", text("members", "binary_version"))},
		"members.os":             {join("os", text("members", "os"))},
		"members.arch":           {join("arch", text("members", "arch"))},
		"members.resources": {join("services", []string{text("members", "resources")}),
			join("services", strings.Split(strings.Repeat("x,", 9000), ",")),
			join("gpus", []any{map[string]any{"vendor": text("members", "resources")}})},
		"members.labels": {join("labels", many), join("labels", map[string]string{"k": strings.Repeat("x", 257)})},
		"leases.id": {{"PUT", "/api/v1/cluster/leases/" + text("leases", "id"), `{"nodeId":1,"ttlSeconds":1}`, nil,
			"id"}},
		"leases.kind": {{"PUT", "/api/v1/cluster/leases/x",
			object("nodeId", 1, "ttlSeconds", 1, "kind", text("leases", "kind")), nil, "kind"}},
		"join_tokens.labels": {token("labels", many)},
		"join_tokens.hosts": {token("hosts", strings.Split(strings.Repeat("a,", 65), ",")),
			token("hosts", []string{text("join_tokens", "hosts")}),
			token("hosts", slices.Repeat([]string{strings.Repeat("a.", 126) + "a"}, 64))},
		"join_tokens.bind_cidr": {token("bindCidr", text("join_tokens", "bind_cidr"))},
		"join_tokens.bind_name": {token("bindName", text("join_tokens", "bind_name"))},
		"join_tokens.bind_key":  {token("bindKey", text("join_tokens", "bind_key"))},
		"api_tokens.name": {{"POST", "/api/v1/api-tokens",
			object("name", text("api_tokens", "name"), "scopes", []string{"enroll"}), nil, "name"}},
		"api_keys.name": {key("POST", "name", text("api_keys", "name")), key("PUT", "name", text("api_keys", "name")),
			{"POST", "/api/v1/cluster/enrollment-tokens", object("name", text("api_keys", "name")), nil, "name"}},
		"api_keys.role_descriptors": {key("POST", "role_descriptors",
			map[string]any{text("api_keys", "role_descriptors"): map[string]any{}}),
			key("PUT", "role_descriptors", map[string]any{"r": map[string]any{"x": text("api_keys", "role_descriptors")}})},
		"api_keys.metadata": {key("POST", "metadata", map[string]any{"a": text("api_keys", "metadata")}),
			key("PUT", "metadata", map[string]any{"a": text("api_keys", "metadata")})},
		"authorities.cert_pem": {{"POST", "/api/v1/cluster/ca/rotate",
			object("kind", "http", "certPEM", certificate, "keyPEM", "x"), nil, "certPEM"}},
		"authorities.sealed_key": {{"POST", "/api/v1/cluster/ca/rotate",
			object("kind", "http", "certPEM", "x", "keyPEM", text("authorities", "sealed_key")), nil, "keyPEM"}},
		"secrets.name":   {{"PUT", "/api/v1/cluster/secrets/" + text("secrets", "name"), `{"value":"x"}`, nil, "name"}},
		"secrets.sealed": {{"PUT", "/api/v1/cluster/secrets/x", object("value", text("secrets", "sealed")), nil, "value"}},
		"peerings.name": {{"POST", "/v1/peering/token", object("PeerName", text("peerings", "name")), nil, "peer name"},
			{"POST", "/v1/peering/establish", object("PeerName", text("peerings", "name"), "PeeringToken", "x"), nil,
				"peer name"}},
		"peerings.peer_id":     {peering("PeerID", text("peerings", "peer_id"))},
		"peerings.server_name": {peering("ServerName", text("peerings", "server_name"))},
		"peerings.server_addresses": {peering("ServerAddresses",
			strings.Split(strings.Repeat("192.0.2.1:1,", 4000)+"192.0.2.1:1", ","))},
		"peerings.manual_addresses": {peering("ManualServerAddresses",
			strings.Split(strings.Repeat("192.0.2.1:1,", 4000)+"192.0.2.1:1", ","))},
		"peerings.ca_pems": {peering("CA",
			strings.Split(strings.TrimSuffix(strings.Repeat(string(certs.EncodeCert(authority(s)))+"!", 300), "!"), "!"))},
		"peerings.remote_datacenter": {peering("Remote",
			map[string]string{"Datacenter": text("peerings", "remote_datacenter")})},
		"peerings.meta":          {{"POST", "/v1/peering/token", object("PeerName", "x", "Meta", many), nil, "meta"}},
		"workloads.path":         {workload("path", "/"+text("workloads", "path"))},
		"workloads.unix_user":    {workload("user", text("workloads", "unix_user"))},
		"workloads.unix_group":   {workload("group", text("workloads", "unix_group"))},
		"workloads.systemd_unit": {workload("unit", text("workloads", "systemd_unit"))},
		"workloads.hosts": {workload("hosts", slices.Repeat([]string{"x"}, 17)),
			workload("hosts", []string{text("workloads", "hosts")})},
		"idempotency.key": {{"POST", "/api/v1/cluster/join-tokens", `{}`,
			[]string{"Idempotency-Key", text("idempotency", "key")}, "Idempotency-Key"},
			{"GET", "/_security/enroll/node", "", []string{"Idempotency-Key", text("idempotency", "key")}, "Idempotency-Key"}},
	}
}

// authority is the certificate of the HTTP authority, in DER.
func authority(s *sole.Member) []byte {
	s.T.Helper()
	ca, err := s.Store.Authorities.Issuing(s.T.Context(), store.AsLeader, certs.HTTP)
	if err != nil {
		s.T.Fatal(err)
	}
	return ca.Cert.Raw
}

// notByRequest are columns that no request of the API fills with a text of the caller's choice: the cluster listener,
// other clusters, names of credentials and addresses do, which are bounded where they come from. The writer bounds them
// all.
var notByRequest = []string{"members.hooks_outcome", "members.hosts", "members.zone", "removed_members.name",
	"join_tokens.created_by", "join_token_uses.remote", "api_tokens.created_by",
	"api_keys.owner_name", "backups.", "enrollments.enrolled_by", "enrollments.remote", "ca_rotations.started_by",
	"peerings.status_reason", "peering_secrets.sealed",
	"peer_members.", "peer_bundles.", "workloads.created_by", "peering_tombstones.", "idempotency.sealed", "audit."}

// TestTooLongForTheTable walks the table of sizes: what is longer is refused by every route with a sentence that names
// the field and the rule, in the family's envelope, and changes nothing.
func TestTooLongForTheTable(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	requests := tooLongRequests(s)
	for _, size := range store.Sizes {
		at := size.Table + "." + size.Column
		list := requests[at]
		if (len(list) == 0) != isListed(at) {
			t.Errorf("%s: %d requests fill it, and notByRequest has it: %t", at, len(list), isListed(at))
		}
		for _, r := range list {
			before := s.Store.Revision()
			w := s.Call(r.method, r.path, s.Admin, r.body, r.header...)
			body := w.Body.String()
			if w.Code/100 != 4 || !strings.Contains(body, r.names) && !strings.Contains(body, "1 MiB") ||
				strings.Contains(body, "size_") {
				t.Errorf("%s: %s %.60s: %d %.300s", at, r.method, r.path, w.Code, body)
			}
			if kind := w.Header().Get("Content-Type"); !strings.HasPrefix(r.path, "/v1/") &&
				!strings.HasPrefix(kind, "application/") {
				t.Errorf("%s: the refusal is %s", at, kind)
			}
			if s.Store.Revision() != before {
				t.Errorf("%s: %s %.60s has changed something", at, r.method, r.path)
			}
		}
	}
}

func isListed(at string) bool {
	for _, x := range notByRequest {
		if at == x || strings.HasSuffix(x, ".") && strings.HasPrefix(at, x) {
			return true
		}
	}
	return false
}

// TestRowsAreBounded: of everything that callers make there is as much as a setting allows, and the refusal names it.
func TestRowsAreBounded(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	admin := "Bearer " + s.Admin
	for _, x := range []struct {
		option       string
		method, path string
		body         string // %d counts
		header       string
	}{
		{store.SettingLimitAPITokens, "POST", "/api/v1/api-tokens", `{"name":"x%d","scopes":["enroll"]}`, admin},
		{store.SettingLimitAPIKeys, "POST", "/_security/api_key", `{"name":"x%d"}`, admin},
		{store.SettingLimitAPIKeys, "POST", "/api/v1/cluster/enrollment-tokens", `{"name":"x%d"}`, admin},
		{store.SettingLimitJoinTokens, "POST", "/api/v1/cluster/join-tokens", `{"labels":{"n":"%d"}}`, admin},
		{store.SettingLimitJoinTokens, "POST", "/api/v1/cluster/join-tokens", `{"format":"zlayer","labels":{"n":"%d"}}`,
			admin},
		{store.SettingLimitJoinTokens, "POST", "/api/v1/cluster/pki/join-tokens", `{"nodeID":10%d}`, admin},
		{store.SettingLimitEnrollments, "GET", "/_security/enroll/kibana?human=false&format=%d", "",
			s.EnrollKey(`{"scope":"kibana","maxUses":100}`)},
		{store.SettingLimitLeases, "PUT", "/api/v1/cluster/leases/l%d", `{"nodeId":1,"ttlSeconds":100}`, admin},
		{store.SettingLimitSecrets, "PUT", "/api/v1/cluster/secrets/s%d", `{"value":"x"}`, admin},
		{store.SettingLimitWorkloads, "POST", "/api/v1/workloads", `{"path":"/w%d","user":"x"}`, admin},
		{store.SettingLimitPeerings, "POST", "/v1/peering/token", `{"PeerName":"p%d"}`, admin},
		{store.SettingLimitAnswers, "POST", "/api/v1/cluster/join-tokens", `{"labels":{"n":"%d"}}`, admin},
	} {
		s.Option(x.option, "3")
		refused := ""
		for i := range 5 {
			path, body := x.path, x.body
			if strings.Contains(path, "%d") {
				path = fmt.Sprintf(path, i)
			} else {
				body = fmt.Sprintf(body, i)
			}
			key := ""
			if x.option == store.SettingLimitAnswers {
				key = fmt.Sprint("key", i)
			}
			w := s.Call(x.method, path, "", body, "Authorization", x.header, "Content-Type", "application/json",
				"Idempotency-Key", key)
			if w.Code/100 != 2 {
				refused = fmt.Sprint(w.Code, " ", w.Body)
				break
			}
		}
		if !strings.HasPrefix(refused, "4") || !strings.Contains(refused, x.option) {
			t.Errorf("%s, %s %s: %s", x.option, x.method, x.path, refused)
		}
		s.Option(x.option, "null")
	}
}
