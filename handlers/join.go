package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/musterhq/muster/certs"
	"github.com/musterhq/muster/store"
)

// octets is a byte string that is an array of numbers on the wire, as the join family has it. (encoding/json
// would make it Base64.)
type octets []byte

// MarshalJSON writes [1,2,3].
func (o octets) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 4*len(o)+2)
	b = append(b, '[')
	for i, v := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	return append(b, ']'), nil
}

// joinResponse is ClusterJoinResponse (reference zlayer_join, section 1.3), then our own fields. Optional fields
// are absent, never null.
type joinResponse struct {
	NodeID        string     `json:"node_id"`
	RaftNodeID    uint64     `json:"raft_node_id"`
	OverlayIP     string     `json:"overlay_ip"`
	SliceCIDR     string     `json:"slice_cidr"`
	Peers         []joinPeer `json:"peers"`
	Role          string     `json:"role"`
	WrappedDEK    octets     `json:"wrapped_dek,omitempty"`
	DEKGeneration uint64     `json:"dek_generation,omitempty"`
	JoinSecret    string     `json:"join_secret,omitempty"`
	Warnings      []string   `json:"warnings,omitempty"`

	ClusterID     string `json:"cluster_id"`
	Name          string `json:"name"`
	HTTPCert      string `json:"http_cert,omitempty"` // PEM, leaf and CA
	HTTPCA        string `json:"http_ca,omitempty"`
	TransportCert string `json:"transport_cert,omitempty"`
	TransportCA   string `json:"transport_ca,omitempty"`
}

type joinPeer struct {
	NodeID        string `json:"node_id"`
	RaftNodeID    uint64 `json:"raft_node_id"`
	AdvertiseAddr string `json:"advertise_addr"`
	OverlayPort   uint16 `json:"overlay_port"`
	RaftPort      uint16 `json:"raft_port"`
	WGPublicKey   string `json:"wg_public_key"`
	OverlayIP     string `json:"overlay_ip"`

	RaftAddress string `json:"raft_address"`
	APIAddress  string `json:"api_address"`
}

// joinPeers bounds how many peers an answer lists; Raft servers come first and are always all there.
const joinPeers = 256

// joinRequest is ClusterJoinRequest (section 2.1) and our own fields, checked.
type joinRequest struct {
	token        string
	member       store.Member
	pubkey       []byte // nil when the joiner holds no keys
	httpCSR      []byte
	transportCSR []byte
}

func (s *Server) join(q *request) error {
	j, err := parseJoin(q.Request, q.body)
	if err != nil {
		return err
	}
	ctx := q.Context()
	claims, err := s.verifyJoinToken(ctx, j.token)
	if err != nil {
		var known *httpError
		if errors.As(err, &known) && known.status == http.StatusUnauthorized {
			if limited := s.failures.count(q.actor.Remote); limited != nil {
				return limited
			}
		}
		return err
	}
	now := s.Now()
	in := store.Joiner{TokenID: claims.ID, Member: j.member}
	var sealed []byte
	if j.pubkey != nil {
		if in.Member.Recipient, in.Wrap, sealed, in.DEKGeneration, err = s.wrapFor([32]byte(j.pubkey)); err != nil {
			return err
		}
	}
	issue := []struct {
		kind certs.Kind
		csr  []byte
	}{{certs.HTTP, j.httpCSR}, {certs.Transport, j.transportCSR}}
	for _, c := range issue {
		if c.csr != nil {
			in.Certificates = append(in.Certificates, store.NewCertificate(c.kind, now))
		}
	}
	q.actor.Name = "join token " + claims.ID
	joined, err := s.Store.Join(ctx, q.actor, in)
	if err != nil {
		return err
	}
	s.Wake()
	m := &joined.Member
	out := joinResponse{NodeID: m.ID, RaftNodeID: m.NodeID, OverlayIP: m.OverlayIP, SliceCIDR: m.SliceCIDR, WrappedDEK: sealed,
		DEKGeneration: in.DEKGeneration, Warnings: joined.Warnings, ClusterID: s.ClusterID, Name: m.Name}
	if err := s.describeCluster(ctx, &out, m); err != nil {
		return err
	}
	for _, c := range issue {
		if c.csr == nil {
			continue
		}
		for _, record := range joined.Certificates {
			if record.Kind == c.kind {
				if err := s.issue(ctx, &out, record, c.csr, m); err != nil {
					return err
				}
			}
		}
	}
	writeJSON(q.w, http.StatusOK, out)
	return nil
}

// wrapFor gives a new holder the data-encryption key twice: as an age file for the database, as a sealed box for
// the wire.
func (s *Server) wrapFor(pub [32]byte) (recipient string, wrap, sealed []byte, generation uint64, err error) {
	dek, generation, err := s.Store.ActiveDEK()
	if err != nil {
		return "", nil, nil, 0, err
	}
	if recipient, err = certs.Recipient(pub); err != nil {
		return "", nil, nil, 0, fail(http.StatusUnprocessableEntity, "secrets_pubkey is not a usable X25519 public key")
	}
	if wrap, err = certs.Wrap(dek[:], recipient); err != nil {
		return "", nil, nil, 0, err
	}
	sealed, err = certs.SealBox(dek[:], pub)
	return recipient, wrap, sealed, generation, err
}

// verifyJoinToken checks what can be checked without the token's record.
func (s *Server) verifyJoinToken(ctx context.Context, token string) (c certs.JoinClaims, err error) {
	unauthorized := func(format string, args ...any) error {
		return fail(http.StatusUnauthorized, fmt.Sprintf(format, args...))
	}
	if certs.LooksSigned(token) {
		return c, unauthorized("signed token not trusted: this cluster has no signing key of that kind")
	}
	t, err := certs.ParseJoinToken(token)
	if err != nil {
		return c, unauthorized("Invalid join token: malformed: %s", strings.TrimPrefix(err.Error(), "certs: "))
	}
	c = t.Claims()
	if c.ClusterID != s.ClusterID {
		return c, unauthorized("Invalid join token: it was made by another cluster (%s); this is cluster %s", c.ClusterID, s.ClusterID)
	}
	key, err := s.Store.Secret(ctx, store.SecretJoinKey)
	if err != nil {
		return c, err
	}
	now := s.Now()
	switch err := t.Verify(key, now); {
	case errors.Is(err, certs.ErrTokenExpired):
		return c, unauthorized("Invalid join token: expired: it was good until %s and the cluster's clock says %s",
			timeOf(c.ExpiresAt), now.UTC().Format(timeFormat))
	case errors.Is(err, certs.ErrTokenNotYetValid):
		return c, unauthorized("Invalid join token: not yet valid: it was issued at %s and the cluster's clock says %s; are the members' clocks set?",
			timeOf(c.IssuedAt), now.UTC().Format(timeFormat))
	case err != nil:
		return c, unauthorized("Invalid join token: invalid_signature")
	}
	return c, nil
}

// describeCluster fills in what every joiner is told.
func (s *Server) describeCluster(ctx context.Context, out *joinResponse, m *store.Member) error {
	secret, err := s.Store.Secret(ctx, store.SecretJoinSecret)
	if err != nil {
		return err
	}
	out.JoinSecret = string(secret)
	members, err := s.Store.PeekMembers(ctx)
	if err != nil {
		return err
	}
	roles := rolesOf(s.Store.Servers())
	out.Role = "learner"
	if roles[m.NodeID] == store.RoleVoter {
		out.Role = "voter"
	}
	out.Peers = []joinPeer{}
	for _, raft := range []bool{true, false} {
		for i := range members {
			p := &members[i]
			if p.NodeID == m.NodeID || (roles[p.NodeID] != store.RoleNone) != raft {
				continue
			}
			if !raft && len(out.Peers) >= joinPeers {
				out.Warnings = append(out.Warnings, fmt.Sprintf("peers lists %d of %d members; GET /api/v1/cluster/members has them all", len(out.Peers), len(members)-1))
				return nil
			}
			out.Peers = append(out.Peers, peerOf(p))
		}
	}
	return nil
}

func peerOf(m *store.Member) joinPeer {
	p := joinPeer{NodeID: m.ID, RaftNodeID: m.NodeID, AdvertiseAddr: m.AdvertiseAddr, OverlayPort: m.OverlayPort, WGPublicKey: m.WGPublicKey,
		OverlayIP: m.OverlayIP, RaftAddress: m.RaftAddress, APIAddress: m.APIAddress}
	if _, port, err := net.SplitHostPort(m.RaftAddress); err == nil {
		n, _ := strconv.ParseUint(port, 10, 16)
		p.RaftPort = uint16(n)
	}
	return p
}

func (s *Server) issue(ctx context.Context, out *joinResponse, record store.Certificate, csr []byte, m *store.Member) error {
	ca, err := s.Store.Authority(ctx, record.Kind)
	if err != nil {
		return err
	}
	request, err := certs.ParseCSR(csr)
	if err != nil {
		return err
	}
	der, err := record.Sign(ca, request.PublicKey, s.ClusterID, m.Name, hostsOf(m))
	if err != nil {
		return err
	}
	chain, root := string(certs.EncodeCert(der, ca.Cert.Raw)), string(certs.EncodeCert(ca.Cert.Raw))
	if record.Kind == certs.HTTP {
		out.HTTPCert, out.HTTPCA = chain, root
	} else {
		out.TransportCert, out.TransportCA = chain, root
	}
	return nil
}

// hostsOf lists the names and addresses that a member's certificates are for.
func hostsOf(m *store.Member) []string {
	var list []string
	seen := map[string]bool{"": true}
	for _, a := range []string{m.APIAddress, m.RaftAddress, net.JoinHostPort(m.AdvertiseAddr, "0")} {
		host, _, err := net.SplitHostPort(a)
		if err == nil && !seen[host] {
			seen[host] = true
			list = append(list, host)
		}
	}
	return list
}

// parseJoin reads the body. The status codes are those of the original: 415 without a JSON content type, 400 for
// what is not JSON, 422 for a wrong type or value.
func parseJoin(r *http.Request, body []byte) (*joinRequest, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return nil, fail(http.StatusUnsupportedMediaType, "Content-Type must be application/json")
	}
	if !json.Valid(body) {
		return nil, fail(http.StatusBadRequest, "the body is not valid JSON")
	}
	f, err := parseFields(body)
	if err != nil {
		return nil, fail(http.StatusUnprocessableEntity, "the body must be a JSON object")
	}
	f.status = http.StatusUnprocessableEntity
	j := &joinRequest{token: strings.TrimSpace(f.text("token", true, 1, 128<<10))}
	m := &j.member
	m.AdvertiseAddr = f.text("advertise_addr", true, 1, 255)
	m.OverlayPort = uint16(f.integer("overlay_port", true, 0, 65535))
	raftPort := f.integer("raft_port", true, 0, 65535)
	apiPort := int64(3669)
	if f.has("api_port") {
		apiPort = f.integer("api_port", true, 0, 65535)
	}
	m.WGPublicKey = f.text("wg_public_key", true, 0, 255)
	m.Mode = store.ModeFull
	if f.has("mode") {
		m.Mode = f.text("mode", true, 0, 32)
	}
	m.OS, m.Arch = f.text("os", false, 0, 32), f.text("arch", false, 0, 32)
	m.Labels = f.labels("labels")
	m.Name = f.text("name", false, 1, 64)
	m.BinaryVersion = f.text("binary_version", false, 0, 64)
	m.MaxSchema = f.integer("max_schema", false, 0, 1<<31)
	m.RaftAddress, m.APIAddress = f.text("raft_address", false, 1, 300), f.text("api_address", false, 1, 300)
	j.resources(f)
	j.keys(f)
	if f.err == nil {
		j.check(f)
	}
	if f.err != nil {
		return nil, f.err
	}
	if m.RaftAddress == "" {
		m.RaftAddress = net.JoinHostPort(m.AdvertiseAddr, strconv.FormatInt(raftPort, 10))
	}
	if m.APIAddress == "" {
		m.APIAddress = net.JoinHostPort(m.AdvertiseAddr, strconv.FormatInt(apiPort, 10))
	}
	return j, nil
}

// resources reads what the machine says of itself and keeps it as one JSON document.
func (j *joinRequest) resources(f *fields) {
	var r struct {
		CPU      float64         `json:"cpu_total,omitempty"`
		Memory   uint64          `json:"memory_total,omitempty"`
		Disk     uint64          `json:"disk_total,omitempty"`
		GPUs     json.RawMessage `json:"gpus,omitempty"`
		Services []string        `json:"services,omitempty"`
	}
	f.get("cpu_total", false, "a number", &r.CPU)
	f.get("memory_total", false, "a whole number", &r.Memory)
	f.get("disk_total", false, "a whole number", &r.Disk)
	var gpus []struct {
		Vendor string `json:"vendor"`
		Model  string `json:"model"`
		Memory uint64 `json:"memory_mb"`
	}
	if f.get("gpus", false, "an array of objects with vendor, model and memory_mb", &gpus) && len(gpus) > 0 {
		r.GPUs, _ = json.Marshal(gpus)
	}
	r.Services = f.texts("services", false)
	if r.CPU < 0 {
		f.refuse("cpu_total must not be negative")
	}
	j.member.Resources, _ = json.Marshal(r)
}

func (j *joinRequest) keys(f *fields) {
	var numbers []uint8Value
	if f.get("secrets_pubkey", false, "an array of 32 numbers between 0 and 255", &numbers) {
		if len(numbers) != 32 {
			f.refuse("secrets_pubkey must be an array of 32 numbers between 0 and 255")
			return
		}
		j.pubkey = make([]byte, 32)
		for i, n := range numbers {
			j.pubkey[i] = byte(n)
		}
		if _, err := certs.Recipient([32]byte(j.pubkey)); err != nil {
			f.refuse("secrets_pubkey is not a usable X25519 public key")
		}
	}
	for _, c := range []struct {
		name string
		csr  *[]byte
	}{{"http_csr", &j.httpCSR}, {"transport_csr", &j.transportCSR}} {
		var der []byte // Base64 on the wire
		if !f.get(c.name, false, "the Base64 of a certificate request", &der) {
			continue
		}
		if _, err := certs.ParseCSR(der); err != nil {
			f.refuse("%s is not a certificate request with a valid signature and a strong key", c.name)
			continue
		}
		*c.csr = der
	}
}

// uint8Value is a number that must fit a byte; encoding/json would take an array of uint8 for Base64.
type uint8Value uint8

func (j *joinRequest) check(f *fields) {
	m := &j.member
	if m.Mode != store.ModeFull && m.Mode != store.ModeReplicate {
		f.refuse("mode must be full or replicate")
	}
	oneOf := func(name, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		f.refuse("%s must be one of %s", name, strings.Join(allowed[1:], ", "))
	}
	oneOf("os", m.OS, "", "linux", "windows", "macos")
	oneOf("arch", m.Arch, "", "amd64", "arm64")
	if !validHost(m.AdvertiseAddr) {
		f.refuse("advertise_addr must be an IP address or a host name, without a port")
	}
	for _, a := range []struct{ name, value string }{{"raft_address", m.RaftAddress}, {"api_address", m.APIAddress}} {
		if a.value == "" {
			continue
		}
		host, port, err := net.SplitHostPort(a.value)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || n == 0 || !validHost(host) {
			f.refuse("%s must be host:port", a.name)
		}
	}
	if (j.httpCSR != nil || j.transportCSR != nil) && j.pubkey == nil {
		f.refuse("secrets_pubkey is required together with a certificate request")
	}
}

func validHost(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	if h == "" || len(h) > 253 {
		return false
	}
	for _, label := range strings.Split(strings.TrimSuffix(h, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}
