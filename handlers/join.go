package handlers

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

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
	NodeJWT       string     `json:"node_jwt,omitempty"`
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

// joinPeers bounds how many peers outside Raft an answer lists, so that a join costs the same however many members there are; Raft
// servers are always all there.
const joinPeers = 32

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
	token, err := s.verifyJoinToken(ctx, j.token)
	if err != nil {
		var known *httpError
		if errors.As(err, &known) && known.status == http.StatusUnauthorized {
			if limited := s.failures.count(q.actor.Remote); limited != nil {
				return limited
			}
		}
		return err
	}
	in := store.Joiner{TokenID: token.id, KeyRetired: token.retired, Member: j.member, PublicKey: j.pubkey}
	for _, c := range []struct {
		kind certs.Kind
		csr  []byte
	}{{certs.HTTP, j.httpCSR}, {certs.Transport, j.transportCSR}} {
		if c.csr != nil {
			in.Certificates = append(in.Certificates, store.NewCertificate(c.kind, s.Now()))
		}
	}
	q.actor.Name = "join token " + token.id
	for {
		// All that is read is read before the write: an error behind it would be taken for one before it.
		known, err := s.knownToJoiners(ctx)
		if err != nil {
			return err
		}
		var sealed []byte
		if j.pubkey != nil {
			if in.Wrap, sealed, in.DEKGeneration, err = s.wrapFor(j.member.Recipient, [32]byte(j.pubkey)); err != nil {
				return err
			}
		}
		joined, err := s.Store.Join(ctx, q.actor, in)
		if errors.Is(err, store.ErrKeyMoved) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		s.Wake()
		out, err := s.admission(j, known, joined, token.notes)
		if err != nil {
			return err
		}
		out.WrappedDEK, out.DEKGeneration = sealed, in.DEKGeneration
		writeJSON(q.w, http.StatusOK, out)
		return nil
	}
}

// wrapFor gives a new holder the data-encryption key twice: as an age file for the database, as a sealed box for
// the wire.
func (s *Server) wrapFor(recipient string, pub [32]byte) (wrap, sealed []byte, generation uint64, err error) {
	dek, generation, err := s.Store.ActiveDEK()
	if err != nil {
		return nil, nil, 0, err
	}
	if wrap, err = certs.Wrap(dek[:], recipient); err != nil {
		return nil, nil, 0, err
	}
	sealed, err = certs.SealBox(dek[:], pub)
	return wrap, sealed, generation, err
}

// verified is a join token whose signature is good.
type verified struct {
	id      string
	retired bool     // the key has been retired: the token only shows who used it before
	notes   []string // for the operator
}

// signingKeyAge is when a joiner's operator is told that the key should be rotated.
const signingKeyAge = 90 * 24 * time.Hour

// verifyJoinToken checks what can be checked without the token's record, in either format.
func (s *Server) verifyJoinToken(ctx context.Context, text string) (v verified, err error) {
	if certs.LooksSigned(text) { // never taken for anything else from here on
		return s.verifySigned(ctx, text)
	}
	t, err := certs.ParseJoinToken(text)
	if err != nil {
		return v, unauthorized("Invalid join token: malformed: %s", strings.TrimPrefix(err.Error(), "certs: "))
	}
	c := t.Claims()
	if c.ClusterID != s.ClusterID {
		return v, unauthorized("Invalid join token: it was made by another cluster (%s); this is cluster %s", c.ClusterID, s.ClusterID)
	}
	keys, err := s.Store.Keys(ctx, store.KeyJoinHMAC)
	if err != nil {
		return v, err
	}
	now := s.Now()
	for i := range keys {
		switch err := t.Verify(keys[i].Secret, now); {
		case errors.Is(err, certs.ErrTokenExpired):
			return v, unauthorized("Invalid join token: expired: it was good until %s and the cluster's clock says %s",
				timeOf(c.ExpiresAt), now.UTC().Format(timeFormat))
		case errors.Is(err, certs.ErrTokenNotYetValid):
			return v, unauthorized("Invalid join token: not yet valid: it was issued at %s and the cluster's clock says %s; are the members' clocks set?",
				timeOf(c.IssuedAt), now.UTC().Format(timeFormat))
		case err == nil:
			return s.accept(c.ID, &keys[i]), nil
		}
	}
	return v, unauthorized("Invalid join token: invalid_signature")
}

// verifySigned checks a token in ZLayer's format, with its texts (reference zlayer_join, section 2.2).
func (s *Server) verifySigned(ctx context.Context, text string) (v verified, err error) {
	t, err := certs.ParseSignedToken(text)
	var version *certs.TokenVersionError
	switch {
	case errors.As(err, &version):
		return v, unauthorized("unsupported signed token version: got v=%d, expected v=1 or v=2", version.Got)
	case err != nil:
		return v, unauthorized("Invalid join token: malformed: %s", strings.TrimPrefix(err.Error(), "certs: "))
	}
	keys, err := s.Store.Keys(ctx, store.KeyJoinSigning)
	if err != nil {
		return v, err
	}
	now := s.Now()
	for i := range keys {
		k := &keys[i]
		if k.KID != t.KeyID() {
			continue
		}
		switch err := t.Verify(ed25519.PublicKey(k.Public), now); {
		case errors.Is(err, certs.ErrTokenExpired):
			return v, unauthorized("signed token expired at %s (now %s)", t.Claims().Exp, now.UTC().Format(timeFormat))
		case err != nil:
			return v, unauthorized("Ed25519 signature verification failed")
		}
		return s.accept(t.ID(), k), nil
	}
	return v, unauthorized("signed token kid=%.16q not trusted (unknown kid, expired grace, or never issued)", t.KeyID())
}

func (s *Server) accept(id string, k *store.Key) verified {
	v := verified{id: id, retired: !k.Verifies(s.Now())}
	if age := s.Now().Sub(k.CreatedAt); age > signingKeyAge {
		v.notes = append(v.notes, fmt.Sprintf("consider rotating the key that signs join tokens, last rotated %d days ago", int(age.Hours()/24)))
	}
	if k.State == store.KeyGrace {
		v.notes = append(v.notes, "the token was signed with a key that has been rotated since and is accepted for a limited time")
	}
	return v
}

func unauthorized(format string, args ...any) error {
	return fail(http.StatusUnauthorized, fmt.Sprintf(format, args...))
}

// known is what every joiner is told, and what its answer is signed with.
type known struct {
	secret       string
	jwt          *store.Key
	cas          map[certs.Kind]certs.CA
	raft, others []store.Member
}

func (s *Server) knownToJoiners(ctx context.Context) (k known, err error) {
	secret, err := s.Store.ActiveKey(ctx, store.KeyJoinSecret)
	if err != nil {
		return k, err
	}
	k.secret = string(secret.Secret)
	if k.jwt, err = s.Store.ActiveKey(ctx, store.KeyJWT); err != nil {
		return k, err
	}
	k.cas = map[certs.Kind]certs.CA{}
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		if k.cas[kind], err = s.Store.Authority(ctx, kind); err != nil {
			return k, err
		}
	}
	if k.raft, err = s.Store.RaftMembers(ctx); err != nil {
		return k, err
	}
	k.others, err = s.Store.OtherMembers(ctx, joinPeers+2) // the joiner itself may be among them
	return k, err
}

// admission is the answer to a joiner.
func (s *Server) admission(j *joinRequest, k known, joined store.Joined, notes []string) (out joinResponse, err error) {
	m := &joined.Member
	out = joinResponse{NodeID: m.ID, RaftNodeID: m.NodeID, OverlayIP: m.OverlayIP, SliceCIDR: m.SliceCIDR, Role: "learner", Peers: []joinPeer{},
		JoinSecret: k.secret, Warnings: append(joined.Warnings, notes...), ClusterID: s.ClusterID, Name: m.Name}
	if rolesOf(s.Store.Servers())[m.NodeID] == store.RoleVoter {
		out.Role = "voter"
	}
	if m.Recipient != "" {
		if out.NodeJWT, err = s.nodeJWT(k.jwt, m); err != nil {
			return out, err
		}
	}
	left := joinPeers
	for _, list := range [][]store.Member{k.raft, k.others} {
		for i := range list {
			p := &list[i]
			switch {
			case p.NodeID == m.NodeID:
			case p.Role != store.RoleNone:
				out.Peers = append(out.Peers, peerOf(p))
			case left > 0:
				left--
				out.Peers = append(out.Peers, peerOf(p))
			case left == 0:
				left--
				out.Warnings = append(out.Warnings, fmt.Sprintf("peers lists the Raft servers and %d other members; GET /api/v1/cluster/members has them all", joinPeers))
			}
		}
	}
	for _, record := range joined.Certificates {
		csr := j.httpCSR
		if record.Kind == certs.Transport {
			csr = j.transportCSR
		}
		if err := s.issue(&out, k.cas[record.Kind], record, csr, m); err != nil {
			return out, err
		}
	}
	return out, nil
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

func (s *Server) issue(out *joinResponse, ca certs.CA, record store.Certificate, csr []byte, m *store.Member) error {
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
		var err error
		if j.member.Recipient, err = certs.Recipient([32]byte(j.pubkey)); err != nil {
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
