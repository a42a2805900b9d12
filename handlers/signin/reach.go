package signin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"muster/internal/addr"
)

// What a provider says of itself names addresses that this member asks, and one that browsers are sent to. A provider
// that went wrong must not turn the member against its neighbours, nor the page against the person.

// anywhere allows what a setting may name at all.
var anywhere = addr.DialPolicy{Any: true, Loopback: true}

// transport connects like any other, except to what nobody's setting may name: metadata services and the like.
func transport(dials addr.DialPolicy, proxy func(*http.Request) (*url.URL, error)) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = proxy
	dialer := net.Dialer{Timeout: answerWithin, KeepAlive: 30 * time.Second, Control: dials.Control}
	t.DialContext = dialer.DialContext
	t.MaxResponseHeaderBytes = maxAnswer
	return t
}

// noRedirect: an endpoint that sends elsewhere would be told the client's secret there. The redirect is the answer.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// metadata is what else a provider says of itself (OpenID Connect Discovery 1.0, section 3).
type metadata struct {
	Keys       string   `json:"jwks_uri"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
	Clients    []string `json:"token_endpoint_auth_methods_supported"`
}

// algorithms are those of signatures that are believed: of keys that the provider alone has.
func (m *metadata) algorithms() (list []string) {
	for _, a := range m.Algorithms {
		if slices.Contains([]string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256,
			oidc.PS384,
			oidc.PS512, oidc.EdDSA}, a) {
			list = append(list, a)
		}
	}
	return list
}

// style is how the client shows itself. It is not found by trying: a second try would spend a code, or ask too often.
func (m *metadata) style(secret string) oauth2.AuthStyle {
	if secret == "" || len(m.Clients) > 0 && !slices.Contains(m.Clients, "client_secret_basic") {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}

// usable refuses a provider whose endpoints are no addresses for a secret, or for a browser.
func (d *discovered) usable() error {
	plain := isLoopback(d.issuer)
	e := d.provider.Endpoint()
	for name, text := range map[string]string{"authorization_endpoint": e.AuthURL, "token_endpoint": e.TokenURL,
		"jwks_uri": d.about.Keys} {
		if err := allowed(text, plain); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, text := range map[string]string{"device_authorization_endpoint": e.DeviceAuthURL,
		"userinfo_endpoint": d.provider.UserInfoEndpoint()} {
		if err := allowed(text, plain); text != "" && err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

var errAddress = errors.New("it is not an https:// URL")

// allowed refuses what is not https, or, where plain is set, http on loopback.
func allowed(text string, plain bool) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "https" && !(plain && isLoopback(text)) {
		return errAddress
	}
	return nil
}

// brief is an error for the log: a provider's own words may be many.
func brief(err error) string {
	const most = 300
	text := err.Error()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// isLoopback tells http:// addresses of this machine.
func isLoopback(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback()
}

// validSubject accepts what can be written into the audit and tells people apart there.
func validSubject(s string) bool {
	if s == "" || len(s) > maxSubject {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return false
		}
	}
	return true
}

const maxSubject = 240 // bytes
