package zlayer

import (
	"encoding/json"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"

	"muster/certs"
	"muster/handlers"
	"muster/internal/addr"
	"muster/store"
)

// joinRequest is ClusterJoinRequest (section 2.1) with muster's additional fields, checked.
type joinRequest struct {
	token        string
	member       store.Member
	pubkey       []byte // nil: the joiner holds no keys
	httpCSR      []byte
	transportCSR []byte
}

// parseJoin reads the body. The status codes are the original's: 415 without a JSON content type, 400 for
// what is not JSON, 422 for a wrong type or value.
func parseJoin(r *http.Request, body []byte) (*joinRequest, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return nil, handlers.Fail(http.StatusUnsupportedMediaType, "Content-Type must be application/json")
	}
	if !json.Valid(body) {
		return nil, handlers.Fail(http.StatusBadRequest, "the body is not valid JSON")
	}
	f, err := handlers.ParseFields(body)
	if err != nil {
		return nil, handlers.Fail(http.StatusUnprocessableEntity, "the body must be a JSON object")
	}
	f.Status = http.StatusUnprocessableEntity
	j := &joinRequest{token: strings.TrimSpace(f.Text("token", true, 1, 128<<10))}
	raftPort, apiPort := j.machine(f)
	j.resources(f)
	j.keys(f)
	if f.Err == nil {
		j.check(f)
	}
	if f.Err != nil {
		return nil, f.Err
	}
	m := &j.member
	m.AdvertiseAddr = addr.CanonicalHost(m.AdvertiseAddr)
	if m.RaftAddress == "" {
		m.RaftAddress = net.JoinHostPort(m.AdvertiseAddr, strconv.FormatInt(raftPort, 10))
	}
	if m.APIAddress == "" {
		m.APIAddress = net.JoinHostPort(m.AdvertiseAddr, strconv.FormatInt(apiPort, 10))
	}
	m.RaftAddress, m.APIAddress = addr.Canonical(m.RaftAddress), addr.Canonical(m.APIAddress)
	return j, nil
}

// machine reads the machine's description of itself. The ports complete addresses that the request does not contain.
func (j *joinRequest) machine(f *handlers.Fields) (raftPort, apiPort int64) {
	m := &j.member
	m.AdvertiseAddr = f.Text("advertise_addr", true, 1, 255)
	m.OverlayPort = uint16(f.Integer("overlay_port", true, 0, 65535))
	raftPort = f.Integer("raft_port", true, 1, 65535)
	apiPort = 3669
	if f.Has("api_port") {
		apiPort = f.Integer("api_port", true, 1, 65535)
	}
	m.WGPublicKey = f.Line("wg_public_key", true, 0, 255)
	m.Mode = store.ModeFull
	if f.Has("mode") {
		m.Mode = f.Text("mode", true, 0, 32)
	}
	m.OS, m.Arch = f.Text("os", false, 0, 32), f.Text("arch", false, 0, 32)
	m.Labels = f.Labels("labels")
	m.Name = f.Line("name", false, 1, 64)
	m.BinaryVersion = f.Line("binary_version", false, 0, 64)
	m.MaxSchema = f.Integer("max_schema", false, 0, 1<<31)
	m.RaftAddress, m.APIAddress = f.Text("raft_address", false, 1, 300), f.Text("api_address", false, 1, 300)
	return raftPort, apiPort
}

// resources reads the machine's resources and stores them as one JSON document.
func (j *joinRequest) resources(f *handlers.Fields) {
	var r struct {
		CPU      float64         `json:"cpu_total,omitempty"`
		Memory   uint64          `json:"memory_total,omitempty"`
		Disk     uint64          `json:"disk_total,omitempty"`
		GPUs     json.RawMessage `json:"gpus,omitempty"`
		Services []string        `json:"services,omitempty"`
	}
	f.Get("cpu_total", false, "a number", &r.CPU)
	f.Get("memory_total", false, "a whole number", &r.Memory)
	f.Get("disk_total", false, "a whole number", &r.Disk)
	var gpus []struct {
		Vendor string `json:"vendor"`
		Model  string `json:"model"`
		Memory uint64 `json:"memory_mb"`
	}
	if f.Get("gpus", false, "an array of objects with vendor, model and memory_mb", &gpus) && len(gpus) > 0 {
		r.GPUs, _ = json.Marshal(gpus)
	}
	r.Services = f.Texts("services", false)
	if r.CPU < 0 {
		f.Refuse("cpu_total must not be negative")
	}
	j.member.Resources, _ = json.Marshal(r)
}

func (j *joinRequest) keys(f *handlers.Fields) {
	var numbers []uint8Value
	if f.Get("secrets_pubkey", false, "an array of 32 numbers between 0 and 255", &numbers) {
		if len(numbers) != 32 {
			f.Refuse("secrets_pubkey must be an array of 32 numbers between 0 and 255")
			return
		}
		j.pubkey = make([]byte, 32)
		for i, n := range numbers {
			j.pubkey[i] = byte(n)
		}
		var err error
		if j.member.Recipient, err = certs.Recipient([32]byte(j.pubkey)); err != nil {
			f.Refuse("secrets_pubkey is not a usable X25519 public key")
		}
	}
	for _, c := range []struct {
		name string
		csr  *[]byte
	}{{"http_csr", &j.httpCSR}, {"transport_csr", &j.transportCSR}} {
		var der []byte // Base64 on the wire
		if !f.Get(c.name, false, "the Base64 of a certificate request", &der) {
			continue
		}
		if _, err := certs.ParseCSR(der); err != nil {
			f.Refuse("%s is not a certificate request with a valid signature and a strong key", c.name)
			continue
		}
		*c.csr = der
	}
}

// uint8Value is a number that must fit a byte; encoding/json would take an array of uint8 for Base64.
type uint8Value uint8

func (j *joinRequest) check(f *handlers.Fields) {
	m := &j.member
	if m.Mode != store.ModeFull && m.Mode != store.ModeReplicate {
		f.Refuse("mode must be full or replicate")
	}
	oneOf := func(name, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		f.Refuse("%s must be one of %s", name, strings.Join(allowed[1:], ", "))
	}
	oneOf("os", m.OS, "", "linux", "windows", "macos")
	oneOf("arch", m.Arch, "", "amd64", "arm64")
	if err := addr.CheckHost(m.AdvertiseAddr); err != nil {
		f.Refuse("advertise_addr must be an IP address or a host name, without a port: %s", err)
	}
	for _, a := range []struct{ name, value string }{{"raft_address", m.RaftAddress}, {"api_address", m.APIAddress}} {
		if a.value == "" {
			continue
		}
		if err := addr.Check(a.value); err != nil {
			f.Refuse("%s must be host:port: %s", a.name, err)
		}
	}
	if (j.httpCSR != nil || j.transportCSR != nil) && j.pubkey == nil {
		f.Refuse("secrets_pubkey is required together with a certificate request")
	}
}
