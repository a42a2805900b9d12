package certs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// EnrollVersion is the version of Elasticsearch that a cluster reports: clients of the majors 8 and 9 accept a 9.
const EnrollVersion = "9.0.0"

// EnrollToken is Elasticsearch's enrollment token (reference/es_enroll.md, section 4): where to enroll, which CA to
// trust and the key to present. The fields are in wire order.
type EnrollToken struct {
	Version     string   `json:"ver"` // of the issuer
	Addresses   []string `json:"adr"` // HTTPS, host:port
	Fingerprint string   `json:"fgr"` // SHA-256 of the HTTP CA's certificate, 64 lower-case hex digits
	Key         string   `json:"key"` // id:secret, not Base64
}

// Encode writes the token: JSON without blanks in standard Base64 with padding, on one line.
func (t EnrollToken) Encode() (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t); err != nil {
		return "", fmt.Errorf("certs: encode an enrollment token: %w", err)
	}
	return base64.StdEncoding.EncodeToString(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// ParseEnrollToken reads what Encode writes. Like the original it is strict: a missing or additional field is an error.
func ParseEnrollToken(text string) (t EnrollToken, err error) {
	if text == "" {
		return t, errors.New("certs: Cannot decode enrollment token from an empty string")
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return t, errors.New("certs: the enrollment token is not Base64")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil || dec.More() {
		return t, errors.New("certs: the enrollment token is not an object of ver, adr, fgr and key")
	}
	if t.Version == "" || len(t.Addresses) == 0 || t.Fingerprint == "" || t.Key == "" {
		return t, errors.New("certs: the enrollment token lacks one of ver, adr, fgr and key")
	}
	return t, nil
}

// FilterEnrollAddresses chooses the addresses for an enrollment token: no wildcard addresses; loopback only when there
// are no others; IPv4 and names before IPv6, otherwise in the order given; no duplicates. An address is a host with or
// without a port.
func FilterEnrollAddresses(list []string) ([]string, error) {
	var near, far []string
	ipv6 := map[string]bool{}
	for _, addr := range list {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = strings.Trim(addr, "[]")
		}
		ip, err := netip.ParseAddr(host)
		if err != nil {
			if err := checkDNSName(strings.ToLower(host)); err != nil {
				return nil, fmt.Errorf("certs: address %q: %w", addr, err)
			}
		}
		ipv6[addr] = ip.Is6() && !ip.Is4In6()
		switch {
		case ip.IsValid() && ip.Unmap().IsUnspecified():
		case ip.IsValid() && ip.Unmap().IsLoopback(), strings.EqualFold(host, "localhost"):
			near = append(near, addr)
		default:
			far = append(far, addr)
		}
	}
	if len(far) == 0 {
		far = near
	}
	var out []string
	for _, six := range []bool{false, true} {
		for _, addr := range far {
			if ipv6[addr] == six && !slices.Contains(out, addr) {
				out = append(out, addr)
			}
		}
	}
	return out, nil
}
