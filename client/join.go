package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// JoinRequest is the body of POST /api/v1/cluster/join: the documented fields of ClusterJoinRequest, then muster's own
// for members that serve the cluster (reference zlayer_join).
type JoinRequest struct {
	Token         string            `json:"token"`
	AdvertiseAddr string            `json:"advertise_addr"` // IP address or host name
	OverlayPort   uint16            `json:"overlay_port"`
	RaftPort      uint16            `json:"raft_port"`
	APIPort       uint16            `json:"api_port,omitempty"` // 0: the family's default
	WGPublicKey   string            `json:"wg_public_key"`
	Mode          string            `json:"mode"` // "full" or "replicate"
	OS            string            `json:"os,omitempty"`
	Arch          string            `json:"arch,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	SecretsPubkey []int             `json:"secrets_pubkey,omitempty"` // raw X25519 public key, 32 numbers

	Name          string `json:"name,omitempty"`
	BinaryVersion string `json:"binary_version,omitempty"`
	MaxSchema     int64  `json:"max_schema,omitempty"`
	RaftAddress   string `json:"raft_address,omitempty"` // host:port
	APIAddress    string `json:"api_address,omitempty"`  // host:port
	HTTPCSR       []byte `json:"http_csr,omitempty"`     // DER
	TransportCSR  []byte `json:"transport_csr,omitempty"`
}

// JoinResponse is the answer: the documented fields of ClusterJoinResponse, then muster's own. Certificates are PEM.
type JoinResponse struct {
	NodeID        string     `json:"node_id"`
	RaftNodeID    uint64     `json:"raft_node_id"`
	OverlayIP     string     `json:"overlay_ip"`
	SliceCIDR     string     `json:"slice_cidr"`
	Peers         []JoinPeer `json:"peers"`
	Role          string     `json:"role"`        // "voter" or "learner"
	NodeJWT       string     `json:"node_jwt"`    // of a joiner with a secrets_pubkey
	WrappedDEK    []int      `json:"wrapped_dek"` // likewise: libsodium sealed box of the data-encryption key, 80 numbers
	DEKGeneration uint64     `json:"dek_generation"`
	JoinSecret    string     `json:"join_secret"`
	Warnings      []string   `json:"warnings"`

	ClusterID     string `json:"cluster_id"`
	Name          string `json:"name"`
	HTTPCert      string `json:"http_cert"`
	HTTPCA        string `json:"http_ca"`
	TransportCert string `json:"transport_cert"`
	TransportCA   string `json:"transport_ca"`
}

// JoinPeer is an existing member.
type JoinPeer struct {
	NodeID        string `json:"node_id"`
	RaftNodeID    uint64 `json:"raft_node_id"`
	AdvertiseAddr string `json:"advertise_addr"`
	OverlayPort   uint16 `json:"overlay_port"`
	RaftPort      uint16 `json:"raft_port"`
	WGPublicKey   string `json:"wg_public_key"`
	OverlayIP     string `json:"overlay_ip"`
	RaftAddress   string `json:"raft_address"`
	APIAddress    string `json:"api_address"`
}

// joinAttempt bounds the attempt at one address, joinRounds the number of rounds over all addresses.
const (
	joinAttempt = 10 * time.Second
	joinRounds  = 3
)

// Join asks the API addresses (host:port) of a cluster, one after the other, to admit a machine. trust must pin the
// authority in the token. It blocks until one has answered. All attempts carry the same Idempotency-Key, so a lost
// answer never admits a machine twice; calling Join again with the same token and secrets_pubkey gives the same
// identity. A refusal is an *Error; if no address answers, the error is a *NoServerError with each cause.
func Join(ctx context.Context, addrs []string, trust *tls.Config, r JoinRequest) (*JoinResponse, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	hc := &http.Client{Transport: transport}
	key := newKey()
	var tried []Attempt
	for round := range joinRounds {
		tried = tried[:0]
		for _, addr := range addrs {
			out, err := joinAt(ctx, hc, addr, body, key)
			if err == nil {
				return out, nil
			}
			var refused *Error
			if errors.As(err, &refused) && refused.Status < 500 {
				return nil, err
			}
			tried = append(tried, Attempt{Addr: addr, Err: err})
		}
		if round == joinRounds-1 {
			break
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, &NoServerError{Tried: tried}
		}
	}
	return nil, &NoServerError{Tried: tried}
}

func joinAt(ctx context.Context, hc *http.Client, addr string, body []byte, key string) (*JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, joinAttempt)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+"/api/v1/cluster/join",
		bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Error, Message string }
		if json.Unmarshal(data, &e) != nil || e.Message == "" {
			e.Message = fmt.Sprintf("the answer was %s", resp.Status)
		}
		return nil, &Error{Status: resp.StatusCode, Code: e.Error, Message: e.Message, RetryAfter: -1}
	}
	var out JoinResponse
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("the answer is not that of a join: %w", err)
	}
	return &out, nil
}
