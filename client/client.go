// Package client is the Go client of muster's HTTP API.
//
//	c, err := client.New(client.Config{Addrs: []string{"https://10.0.0.1:5000"}, Token: token, CACertFile: "ca.crt"})
//	members, err := c.Members(ctx)
//
// A Client may know several members of one cluster. A call goes to the member that answered last and moves on to the
// next address when one cannot be reached; any member can answer any call. Repeated requests:
//
//   - every request that certainly reached no server (the connection could not be made);
//   - reads, also when the connection broke before the answer, on 503, and on 500 with Retry-After (the raft family's
//     answer without a leader);
//   - requests that create something, likewise: every repetition carries the same Idempotency-Key;
//   - deletions, hand-overs of leadership, drain and resume on 503 with Retry-After, but not when the connection broke
//     (then the error is ErrUnknownOutcome). A repeated deletion gets 404 if an earlier attempt was executed after all;
//   - nothing after any other answer.
//
// A call fails with an *Error when a server has refused it (its Status, Code and Message are the server's), with a
// *NoServerError when none answered (errors.Is(err, ErrNoServer)), with ErrUnknownOutcome when the request may have
// been executed, and with the context's error when that ended first. For every error, errors.Is(err, ErrUnknownOutcome)
// reports whether the request may have been executed. No error contains the token.
//
// Every call blocks until it is answered, until its context ends, or, when the context has no deadline of its own,
// until Config.Timeout has passed. A Client is safe for use by several goroutines.
package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// DefaultAddr is asked when Config.Addrs is empty: a member on this machine with its default port.
	DefaultAddr = "https://127.0.0.1:5000"
	// DefaultTimeout bounds a call, repetitions included, whose context has no deadline.
	DefaultTimeout = 15 * time.Second

	slowTimeout    = 75 * time.Second // for calls that wait for machines; a member gives up earlier
	answerTimeout  = 5 * time.Second  // within it a member at least reports that there is no leader
	connectTimeout = 3 * time.Second  // for a TCP connection, and again for the TLS handshake on it
)

// Config selects a cluster and a credential. The zero value uses DefaultAddr without a token.
type Config struct {
	// Addrs are API addresses of members of one cluster, "https://HOST:PORT" or "HOST:PORT" (then https).
	// "http://HOST:PORT" uses a --plain-http listener, and sends the token in clear text.
	Addrs []string
	// Token is the API token, sent as "Authorization: Bearer". Empty: none is sent.
	Token string
	// CACert holds the cluster's HTTP CA as PEM text. It wins over CACertFile.
	CACert []byte
	// CACertFile names a PEM file with the cluster's HTTP CA, such as a member's DIR/ca.crt.
	// With neither, the system's certificate authorities decide.
	CACertFile string
	// Timeout bounds a call whose context has no deadline; calls that wait for machines (a drain, a removal, a promotion,
	// the change of the schema, the first contact of a peering) have at least 75 s. 0: DefaultTimeout.
	Timeout time.Duration
	// UserAgent is sent with each request. Empty: "muster-client".
	UserAgent string
}

// Client makes calls to one cluster. Make it with New.
type Client struct {
	addrs   []string
	token   string
	agent   string
	timeout time.Duration
	ownCA   bool // a CA was given; the system's authorities are ignored
	http    *http.Client
	last    atomic.Int64 // index in addrs of the member that answered last

	orStale bool      // reads are Stale without a leader
	stale   bool      // the contacted member answers reads from its replica
	report  func(Age) // called for such answers
}

// New returns a Client. It does not connect yet. It fails for an invalid address and for an unreadable CA certificate.
func New(cfg Config) (*Client, error) {
	c := &Client{token: strings.TrimSpace(cfg.Token), agent: cfg.UserAgent, timeout: cfg.Timeout}
	if c.agent == "" {
		c.agent = "muster-client"
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	addrs := cfg.Addrs
	if len(addrs) == 0 {
		addrs = []string{DefaultAddr}
	}
	for _, a := range addrs {
		addr, err := normalize(a)
		if err != nil {
			return nil, err
		}
		c.addrs = append(c.addrs, addr)
	}
	roots, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(c.token, func(r rune) bool { return r <= ' ' || r > '~' }) { // no header could carry it
		return nil, invalid("the token has spaces, line breaks or characters other than ASCII: it must be a single word")
	}
	c.ownCA = roots != nil

	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: connectTimeout}).DialContext
	transport.TLSHandshakeTimeout = connectTimeout
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	c.http = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Addrs returns the addresses that the Client knows, as URLs, in the order given.
func (c *Client) Addrs() []string { return append([]string(nil), c.addrs...) }

// Close closes idle connections. The Client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (cfg Config) roots() (*x509.CertPool, error) {
	pem, from := cfg.CACert, "the CA certificate"
	if len(pem) == 0 {
		if cfg.CACertFile == "" {
			return nil, nil
		}
		var err error
		if pem, err = os.ReadFile(cfg.CACertFile); err != nil {
			return nil, fmt.Errorf("cannot read the CA certificate: %w", err)
		}
		from = cfg.CACertFile
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, invalid(from + " holds no certificate in PEM form")
	}
	return pool, nil
}

// invalid is the error of an unusable Config: ErrConfig with a reason.
type invalid string

// Is reports whether target is ErrConfig.
func (e invalid) Is(target error) bool { return target == ErrConfig }

func (e invalid) Error() string { return string(e) }

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// normalize returns an address in the form "https://host:port".
func normalize(addr string) (string, error) {
	addr = strings.TrimSpace(addr)
	full := addr
	if !strings.Contains(addr, "://") {
		full = "https://" + addr
	}
	u, err := url.Parse(full)
	if err == nil {
		switch {
		case u.Scheme != "https" && u.Scheme != "http":
			err = errors.New("the scheme must be https or http")
		case u.Port() != "" && !isPort(u.Port()):
			err = errors.New("the port must be between 1 and 65535")
		case u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "":
			err = errors.New("it must look like https://HOST:PORT")
		}
	}
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return "", invalid(fmt.Sprintf("bad address %q: %v", addr, err))
	}
	return strings.TrimRight(full, "/"), nil
}
