package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Settings of sign-in.
const (
	SettingOIDCIssuer   = "oidc.issuer"
	SettingOIDCClientID = "oidc.client_id"
	SettingOIDCSecret   = "oidc.client_secret"
	SettingOIDCAudience = "oidc.audience"
	SettingOIDCName     = "oidc.name_claim"
	SettingOIDCScopes   = "oidc.scopes"
	SettingOIDCRules    = "oidc.rules"
	SettingOIDCLifetime = "oidc.lifetime"
)

const (
	maxLoginRules     = 32
	maxLoginScopes    = 16
	maxLoginText      = 255 // bytes of a claim, a value, an id
	loginsPerPerson   = 10
	maxLoginName      = 64 // bytes, as of any API token
	loginCreator      = "sign-in"
	defaultLoginClaim = "email"
	noLogin           = "none" // value of an unset setting
)

// LoginRule grants scopes to people with a value in a claim, which is a string or a list of strings.
type LoginRule struct {
	Claim  string   `json:"claim"`
	Value  string   `json:"value"`
	Scopes []string `json:"scopes"`
}

// LoginSettings are the values of the settings oidc.*.
type LoginSettings struct {
	Issuer    string // empty: sign-in is off
	ClientID  string
	Secret    string // name of the stored secret with the client's secret, or empty
	Audience  string
	NameClaim string
	Ask       []string // scopes of the provider's, besides openid, email and profile
	Rules     []LoginRule
	Lifetime  time.Duration // of the token of a person
}

var loginSettings = []Setting{
	{
		Name:    SettingOIDCIssuer,
		Default: quote(noLogin),
		Help:    "the OpenID provider that people sign in with",
		Rule: quote(noLogin) + " or the https:// URL of an OpenID provider, of at most 255 bytes, without query; " +
			"http:// on loopback alone",
		valid: wordRule(func(s string) bool { return s == noLogin || validIssuer(s) }),
	},
	{
		Name:    SettingOIDCClientID,
		Default: `"muster"`,
		Help:    "this cluster's id at the OpenID provider",
		Rule:    wordText,
		valid:   wordRule(nil),
	},
	{
		Name:    SettingOIDCSecret,
		Default: quote(noLogin),
		Help:    "the stored secret with this cluster's client secret",
		Rule:    quote(noLogin) + " or the name of a stored secret",
		valid:   wordRule(nil),
	},
	{
		Name:    SettingOIDCAudience,
		Default: quote(noLogin),
		Help:    "the audience of ID tokens; \"none\" means oidc.client_id",
		Rule:    quote(noLogin) + " or " + wordText,
		valid:   wordRule(nil),
	},
	{
		Name:    SettingOIDCName,
		Default: quote(defaultLoginClaim),
		Help:    "the claim with a person's name, also for the audit",
		Rule:    "the name of a claim, " + wordText,
		valid:   wordRule(nil),
	},
	{
		Name:    SettingOIDCScopes,
		Default: quote(noLogin),
		Help:    "what is asked of the OpenID provider besides openid, email and profile, such as groups",
		Rule: fmt.Sprintf("%q or up to %d scopes (RFC 6749, section 3.3) of at most 64 characters, with commas between them",
			noLogin, maxLoginScopes),
		valid: wordRule(validLoginScopes),
	},
	{
		Name:    SettingOIDCRules,
		Default: quote(noLogin),
		Help:    "the scopes that claims grant",
		Rule: fmt.Sprintf("%q or a list of at most %d {\"claim\": …, \"value\": …, \"scopes\": […]}; scopes are of %s",
			noLogin, maxLoginRules, strings.Join(Scopes, ", ")),
		valid: validLoginRules,
	},
	durationSetting(SettingOIDCLifetime, time.Hour, 5*time.Minute, 24*time.Hour,
		"how long a sign-in lasts; changed claims and rules take effect at the next one"),
}

const wordText = "a printable text of 1 to 255 bytes without spaces"

// wordRule accepts a JSON string that wordText describes and that ok, if not nil, accepts.
func wordRule(ok func(string) bool) func(json.RawMessage) bool {
	return func(v json.RawMessage) bool {
		var s string
		return json.Unmarshal(v, &s) == nil && s != "" && len(s) <= maxLoginText && printableText(s) &&
			!strings.Contains(s, " ") && (ok == nil || ok(s))
	}
}

func printableText(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func validIssuer(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && ip != nil && ip.IsLoopback()
}

func validLoginScopes(s string) bool {
	list := strings.Split(s, ",")
	for i, scope := range list {
		if scope == "" || len(scope) > 64 || slices.Contains(list[:i], scope) ||
			strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return false
		}
	}
	return len(list) <= maxLoginScopes
}

func validLoginRules(v json.RawMessage) bool {
	if string(v) == quote(noLogin) {
		return true
	}
	var list []LoginRule
	if json.Unmarshal(v, &list) != nil || len(list) == 0 || len(list) > maxLoginRules || len(v) > 16<<10 {
		return false
	}
	text := func(s string) bool { return s != "" && len(s) <= maxLoginText && printableText(s) }
	for _, r := range list {
		if !text(r.Claim) || !text(r.Value) || len(r.Scopes) == 0 || len(r.Scopes) > len(Scopes) ||
			slices.ContainsFunc(r.Scopes, func(s string) bool { return !slices.Contains(Scopes, s) }) {
			return false
		}
	}
	return true
}

// Login returns the settings of sign-in.
func (st Settings) Login(ctx context.Context, c Consistency) (l LoginSettings, err error) {
	var lifetime, ask string
	var rules json.RawMessage
	if err = st.values(ctx, c, map[string]any{
		SettingOIDCIssuer:   &l.Issuer,
		SettingOIDCClientID: &l.ClientID,
		SettingOIDCSecret:   &l.Secret,
		SettingOIDCAudience: &l.Audience,
		SettingOIDCName:     &l.NameClaim,
		SettingOIDCScopes:   &ask,
		SettingOIDCRules:    &rules,
		SettingOIDCLifetime: &lifetime,
	}); err != nil {
		return l, err
	}
	for _, s := range []*string{&l.Issuer, &l.Secret, &l.Audience} {
		if *s == noLogin {
			*s = ""
		}
	}
	if ask != noLogin {
		l.Ask = strings.Split(ask, ",")
	}
	if string(rules) != quote(noLogin) {
		if err = json.Unmarshal(rules, &l.Rules); err != nil {
			return l, err
		}
	}
	l.Lifetime, err = time.ParseDuration(lifetime)
	return l, err
}

// Scopes returns the scopes that a person's claims grant, sorted; none when no rule matches. A claim that is neither a
// string nor a list of strings grants nothing.
func (l *LoginSettings) Scopes(claims map[string]any) (scopes []string) {
	for _, r := range l.Rules {
		has := false
		switch v := claims[r.Claim].(type) {
		case string:
			has = v == r.Value
		case []any:
			has = slices.Contains(v, any(r.Value))
		}
		if has && (r.Claim != "email" || claims["email_verified"] != false) {
			scopes = append(scopes, r.Scopes...)
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}

// Called returns a person's name: the claim that the settings name, or the subject.
func (l *LoginSettings) Called(subject string, claims map[string]any) string {
	name, _ := claims[l.NameClaim].(string)
	if name == "" || len(name) > maxLoginName || !printableText(name) {
		name = subject
	}
	if name = strings.ToValidUTF8(name, "?"); len(name) > maxLoginName {
		name = strings.ToValidUTF8(name[:maxLoginName], "")
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}

// Login stores the token of a person who has signed in. Only a few are kept per person: it deletes the oldest.
func (at APITokens) Login(ctx context.Context, actor Actor, t APIToken, subject string) (APIToken, error) {
	scopes, err := json.Marshal(t.Scopes)
	if err != nil {
		return t, err
	}
	actor.Name = t.Name
	t.CreatedBy = loginCreator + " " + subject
	if len(t.CreatedBy) > maxLoginText {
		t.CreatedBy = strings.ToValidUTF8(t.CreatedBy[:maxLoginText], "")
	}
	err = at.s.Write(ctx, actor, func(tx *Tx) error {
		mine, err := collect(&tx.View, scanAPIToken,
			selectAPITokens+" WHERE created_by = ? ORDER BY created_at, id", t.CreatedBy)
		if err != nil {
			return err
		}
		for len(mine) >= loginsPerPerson {
			if err := tx.exec("DELETE FROM api_tokens WHERE id = ?", mine[0].ID); err != nil {
				return err
			}
			mine = mine[1:]
		}
		if err := tx.boundAPITokens(); err != nil {
			return err
		}
		t.CreatedAt = tx.Now
		if err := tx.exec(insertAPIToken, t.ID, t.Name, t.SecretHash, string(scopes), t.CreatedBy, t.CreatedAt, t.ExpiresAt,
			int64(tx.Rev)); err != nil {
			return err
		}
		return tx.audit("api_token.login", "api_token/"+t.ID,
			made("name", t.Name, "subject", subject, "scopes", t.Scopes, "ttl", lifetime(tx.Now, t.ExpiresAt)))
	})
	return t, err
}

// Logout deletes the token of a sign-in; it rejects a token created in another way.
func (at APITokens) Logout(ctx context.Context, actor Actor, t *APIToken) error {
	if !strings.HasPrefix(t.CreatedBy, loginCreator+" ") {
		return refuse(Conflict, "this API token is not from a sign-in; revoking it needs the scope management")
	}
	return at.s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount("DELETE FROM api_tokens WHERE id = ?", t.ID)
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("api_token.logout", "api_token/"+t.ID, t.Name)
	})
}
