package consul

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/internal/addr"
	"muster/store"
)

// PeeringGenerateTokenRequest is the documented body; TokenTTL is muster's addition. The names of this and the next two
// types are part of the documented error texts.
type PeeringGenerateTokenRequest struct {
	PeerName                string
	Partition               string
	Meta                    map[string]string
	ServerExternalAddresses []string
	TokenTTL                string // a Go duration; empty: the token does not expire
}

// PeeringEstablishRequest is the documented body.
type PeeringEstablishRequest struct {
	PeerName     string
	PeeringToken string
	Partition    string
	Meta         map[string]string
}

// PeeringToken is the content of a peering token, which is Base64 (reference consul_peering, section 2.1).
type PeeringToken struct {
	CA                    []string
	ManualServerAddresses []string
	ServerAddresses       []string
	ServerName            string
	PeerID                string
	EstablishmentSecret   string
	Remote                remote
}

type remote struct {
	Partition  string
	Datacenter string
	Locality   *locality
}

type locality struct{ Region, Zone string }

func bad(format string, args ...any) error {
	return handlers.Fail(http.StatusBadRequest, fmt.Sprintf(format, args...))
}

// jsonError words a decoding error as the original does, with the package and type names that it has there.
func jsonError(err error, pkg, name string) string {
	var e *json.UnmarshalTypeError
	if errors.As(err, &e) && e.Field == "" {
		return "json: cannot unmarshal " + e.Value + " into Go value of type " + pkg + "." + name
	}
	return err.Error()
}

// decodePeering decodes the first JSON value of a body and rejects unknown fields.
func decodePeering(body []byte, name string, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return bad("Body decoding failed: %s", jsonError(err, "api", name))
	}
	return nil
}

// checkPartition rejects partitions, a feature of Consul Enterprise.
func checkPartition(r *http.Request) error {
	if r.Header.Get("X-Consul-Partition") != "" {
		return bad(`Invalid header: "X-Consul-Partition" - Partitions are a Consul Enterprise feature`)
	}
	if r.URL.Query().Get("partition") != "" {
		return bad(`Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature`)
	}
	return nil
}

var peerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9\-]{0,61}[a-z0-9])?$`)

func checkPeerName(name string) error {
	if !peerName.MatchString(name) {
		return bad("%s is not a valid peer name: a valid peering name must consist of lower case alphanumeric characters "+
			"or '-', and must start and end with an alphanumeric character", name)
	}
	if name == "token" || name == "establish" {
		return bad("%s is not a valid peer name: /v1/peering/%s is an endpoint, so a peering of that name could be neither "+
			"read nor deleted", name, name)
	}
	return nil
}

var metaKey = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

func checkPeeringMeta(meta map[string]string) error {
	if len(meta) > 64 {
		return bad("meta tags failed validation: Node metadata cannot contain more than 64 key/value pairs")
	}
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		what := ""
		switch v := meta[k]; {
		case k == "":
			what = "Key cannot be blank"
		case !metaKey.MatchString(k):
			what = "Key contains invalid characters"
		case len(k) > 128:
			what = "Key is too long (limit: 128 characters)"
		case strings.HasPrefix(k, "consul-"):
			what = "Key prefix 'consul-' is reserved for internal use"
		case len(v) > 512:
			what = "Value is too long (limit: 512 characters)"
		default:
			continue
		}
		return bad("meta tags failed validation: Couldn't load metadata pair ('%s', '%s'): %s", k, meta[k], what)
	}
	return nil
}

const (
	maxExternalAddresses = 32
	maxTokenAddresses    = 64 // of either kind
	maxTokenCAs          = 16
	maxCAText            = 8 << 10
	maxPeeringTokenTTL   = 366 * 24 * time.Hour
)

func vetTokenRequest(q *handlers.Request) error {
	_, _, err := tokenRequest(q)
	return err
}

// tokenRequest reads the body of POST /v1/peering/token; the checks are in the documented order.
func tokenRequest(q *handlers.Request) (in PeeringGenerateTokenRequest, ttl time.Duration, err error) {
	if err := decodePeering(q.Content, "PeeringGenerateTokenRequest", &in); err != nil {
		return in, 0, err
	}
	if in.PeerName == "" {
		return in, 0, bad("PeerName is required in the payload when generating a new peering token.")
	}
	if err := checkPartition(q.Request); err != nil {
		return in, 0, err
	}
	if in.Partition != "" && !strings.EqualFold(in.Partition, "default") {
		return in, 0, bad("Partitions are a Consul Enterprise feature")
	}
	if err := checkPeerName(in.PeerName); err != nil {
		return in, 0, err
	}
	if err := checkPeeringMeta(in.Meta); err != nil {
		return in, 0, err
	}
	if len(in.ServerExternalAddresses) > maxExternalAddresses {
		return in, 0, bad("ServerExternalAddresses must have at most %d entries", maxExternalAddresses)
	}
	for _, a := range in.ServerExternalAddresses {
		if isIP, err := addr.CheckIP(a); isIP && err == nil {
			continue // it has no port, which warnings reports
		}
		if err := checkPeerAddress(a); err != nil {
			return in, 0, err
		}
	}
	if in.TokenTTL != "" {
		if ttl, err = time.ParseDuration(in.TokenTTL); err != nil || ttl < time.Second || ttl > maxPeeringTokenTTL {
			return in, 0, bad("TokenTTL must be a duration from 1s to 8784h, such as 24h")
		}
	}
	return in, ttl, nil
}

func vetEstablishRequest(q *handlers.Request) error {
	_, _, err := establishRequest(q)
	return err
}

// establishRequest reads the body of POST /v1/peering/establish; the checks are in the documented order.
func establishRequest(q *handlers.Request) (in PeeringEstablishRequest, token PeeringToken, err error) {
	if err := decodePeering(q.Content, "PeeringEstablishRequest", &in); err != nil {
		return in, token, err
	}
	if in.PeerName == "" {
		return in, token, bad("PeerName is required in the payload when establishing a peering.")
	}
	if in.PeeringToken == "" {
		return in, token, bad("PeeringToken is required in the payload when establishing a peering.")
	}
	if err := checkPartition(q.Request); err != nil {
		return in, token, err
	}
	if err := checkPeerName(in.PeerName); err != nil {
		return in, token, err
	}
	if token, err = parsePeeringToken(in.PeeringToken); err != nil {
		return in, token, err
	}
	if err := checkPeeringSizes(&token); err != nil {
		return in, token, err
	}
	return in, token, checkPeeringMeta(in.Meta)
}

// parsePeeringToken decodes a token and checks its content, but not its secret.
func parsePeeringToken(text string) (token PeeringToken, err error) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return token, bad("failed to decode token: %s", err)
	}
	if err := json.Unmarshal(data, &token); err != nil {
		return token, bad("%s", jsonError(err, "structs", "PeeringToken"))
	}
	if err := checkTokenCAs(token.CA); err != nil {
		return token, err
	}
	addresses := append(append([]string{}, token.ManualServerAddresses...), token.ServerAddresses...)
	if len(addresses) == 0 {
		return token, bad("peering token server addresses value is empty")
	}
	if max(len(token.ManualServerAddresses), len(token.ServerAddresses)) > maxTokenAddresses {
		return token, bad("peering token has more than %d server addresses", maxTokenAddresses)
	}
	for _, a := range addresses {
		if err := checkPeerAddress(a); err != nil {
			return token, err
		}
	}
	switch {
	case len(token.CA) > 0 && token.ServerName == "":
		return token, bad("peering token server name value is empty")
	case token.PeerID == "":
		return token, bad("peering token peer ID value is empty")
	case len(token.CA) == 0:
		return token, bad("peering token CA value is empty: peers are reached over TLS only")
	}
	return token, token.checkNames()
}

func checkTokenCAs(list []string) error {
	if len(list) > maxTokenCAs {
		return bad("peering token invalid CA: there are %d certificates, at most %d are allowed", len(list), maxTokenCAs)
	}
	for _, ca := range list {
		if len(ca) > maxCAText {
			return bad("peering token invalid CA: a certificate has %d bytes, at most %d are allowed", len(ca), maxCAText)
		}
		if err := checkTokenCA([]byte(ca)); err != nil {
			return err
		}
	}
	return nil
}

// checkTokenCA requires certificates and nothing behind them: the whole text is stored in clear and shown to readers,
// so a key pasted behind a certificate would be, too.
func checkTokenCA(text []byte) error {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return bad("peering token invalid CA: no PEM-encoded data found")
	}
	for {
		if block == nil || block.Type != "CERTIFICATE" {
			return bad("peering token invalid CA: nothing but PEM certificates may follow a certificate")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return bad("peering token invalid CA: %.200s", err)
		}
		if len(bytes.TrimSpace(rest)) == 0 {
			return nil
		}
		block, rest = pem.Decode(rest)
	}
}

// checkNames checks that the values sent to the other cluster and stored in the database have the form of muster's own
// tokens. The original does not check them.
func (t *PeeringToken) checkNames() error {
	switch {
	case !certs.ValidServerName(t.ServerName):
		return bad("peering token server name must be a DNS name in lower case, not %s", excerpt(t.ServerName))
	case !certs.ValidPeeringID(t.PeerID):
		return bad("peering token peer ID must have 1 to 64 letters, digits, '-' or '_', not %s", excerpt(t.PeerID))
	case t.EstablishmentSecret != "" && !certs.ValidPeeringID(t.EstablishmentSecret):
		return bad("peering token establishment secret must have 1 to 64 letters, digits, '-' or '_'")
	case t.Remote.Datacenter != "" && !certs.ValidDatacenter(t.Remote.Datacenter):
		return bad("peering token datacenter must be a DNS label in lower case, not %s", excerpt(t.Remote.Datacenter))
	}
	return nil
}

// checkPeeringSizes rejects a token with more content than a peering may store, before any address is dialled.
func checkPeeringSizes(t *PeeringToken) error {
	for column, v := range map[string]any{"peer_id": t.PeerID, "server_name": t.ServerName,
		"remote_datacenter": t.Remote.Datacenter, "ca_pems": t.CA,
		"server_addresses": t.ServerAddresses, "manual_addresses": t.ManualServerAddresses} {
		text, ok := v.(string)
		if !ok {
			text = string(handlers.MustJSON(v))
		}
		if err := store.CheckSize("peerings", column, []byte(text)); err != nil {
			return bad("the peering token is too large: %s", err)
		}
	}
	return nil
}

// checkPeerAddress rejects an address that cannot be dialled with the documented text, and adds the reason when the
// syntax is right.
func checkPeerAddress(a string) error {
	err := addr.CheckPeer(a)
	if err == nil {
		return nil
	}
	text := fmt.Sprintf("%.300s is not a valid peering server address", a)
	if host, _, split := net.SplitHostPort(a); split == nil {
		if isIP, never := addr.CheckIP(host); isIP && never != nil {
			text += ": " + never.Error()
		}
	}
	return bad("%s", text)
}

// excerpt quotes the beginning of a caller's input.
func excerpt(s string) string { return fmt.Sprintf("%.100q", s) }

// checkPeeringName requires a name in requests about one peering.
func checkPeeringName(r *http.Request) error {
	if peeringNameOf(r) == "" {
		return bad("Must specify a name to fetch.")
	}
	return checkPartition(r)
}

func peeringNameOf(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, "/v1/peering/") }

func checkPeeringRead(r *http.Request) error {
	if err := checkPeeringName(r); err != nil {
		return err
	}
	return checkReadParameters(r)
}

func checkPeeringList(r *http.Request) error {
	if err := checkPartition(r); err != nil {
		return err
	}
	return checkReadParameters(r)
}

// checkReadParameters rejects malformed parameters of reads with the documented texts (reference consul_peering, 1.6).
func checkReadParameters(r *http.Request) error {
	query := r.URL.Query()
	if v := query.Get("wait"); v != "" {
		if _, err := time.ParseDuration(v); err != nil {
			return bad("Invalid wait time")
		}
	}
	if v := query.Get("index"); v != "" {
		if _, err := strconv.ParseUint(v, 10, 64); err != nil {
			return bad("Invalid index")
		}
	}
	_, stale := query["stale"]
	_, consistent := query["consistent"]
	if stale && consistent {
		return bad("Cannot specify ?stale with ?consistent, conflicting semantics.")
	}
	if v := query.Get("max_stale"); v != "" {
		if _, err := time.ParseDuration(v); err != nil {
			return bad("Invalid max_stale value %q", v)
		}
	}
	for part := range strings.SplitSeq(strings.ToLower(r.Header.Get("Cache-Control")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if name == "max-age" || name == "stale-if-error" {
			if _, err := strconv.ParseUint(strings.TrimSpace(value), 10, 63); err != nil {
				return bad("Invalid Cache-Control header.")
			}
		}
	}
	return nil
}
