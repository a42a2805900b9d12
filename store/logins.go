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

// Settings of the sign-in of people.
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
	noLogin           = "none" // of a setting: nothing
)

// LoginRule gives scopes to whoever has a value in a claim: a text, or one of a list of texts.
type LoginRule struct {
	Claim  string   `json:"claim"`
	Value  string   `json:"value"`
	Scopes []string `json:"scopes"`
}

// LoginSettings say who signs in where, and what they may.
type LoginSettings struct {
	Issuer    string // empty: nobody signs in
	ClientID  string
	Secret    string // name of the stored secret with the client's secret, or empty
	Audience  string
	NameClaim string
	Ask       []string // scopes of the provider's, besides openid, email and profile
	Rules     []LoginRule
	Lifetime  time.Duration // of what a person gets
}

var loginSettings = []Setting{
	{Name: SettingOIDCIssuer, Default: quote(noLogin), Help: "the OpenID provider that people sign in with",
		Rule: quote(noLogin) + " or the https:// URL of an OpenID provider, of at most 255 bytes, without query; http:// on " +
			"loopback alone",
		valid: wordRule(func(s string) bool { return s == noLogin || validIssuer(s) })},
	{Name: SettingOIDCClientID, Default: `"muster"`, Help: "this cluster's id at the OpenID provider",
		Rule: wordText, valid: wordRule(nil)},
	{Name: SettingOIDCSecret, Default: quote(noLogin), Help: "which stored secret is this cluster's at the OpenID provider",
		Rule: quote(noLogin) + " or the name of a stored secret", valid: wordRule(nil)},
	{Name: SettingOIDCAudience, Default: quote(noLogin), Help: "whom ID tokens must be for; \"none\" stands for oidc.client_id",
		Rule: quote(noLogin) + " or " + wordText, valid: wordRule(nil)},
	{Name: SettingOIDCName, Default: quote(defaultLoginClaim), Help: "the claim that a person is called by, in the audit too",
		Rule: "the name of a claim, " + wordText, valid: wordRule(nil)},
	{Name: SettingOIDCScopes, Default: quote(noLogin),
		Help: "what is asked of the OpenID provider besides openid, email and profile, such as groups",
		Rule: fmt.Sprintf("%q or up to %d scopes (RFC 6749, section 3.3) of at most 64 characters, with commas between them",
			noLogin, maxLoginScopes), valid: wordRule(validLoginScopes)},
	{Name: SettingOIDCRules, Default: quote(noLogin), Help: "which scopes people have, by their claims",
		Rule: fmt.Sprintf("%q or a list of at most %d {\"claim\": …, \"value\": …, \"scopes\": […]}; scopes are of %s", noLogin,
			maxLoginRules, strings.Join(Scopes, ", ")), valid: validLoginRules},
	durationSetting(SettingOIDCLifetime, time.Hour, 5*time.Minute, 24*time.Hour,
		"how long a person is signed in; other claims or rules show at the next time"),
}

const wordText = "a printable text of 1 to 255 bytes without spaces"

// wordRule accepts such a text, if ok, which may be nil, does too.
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

// Login reads them.
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

// Scopes returns what the claims of a person give, sorted; none when no rule fits. A claim of another type than text or a
// list of texts gives nothing.
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

// Called is what a person is called: the claim that the settings name, or the subject.
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

// Login stores the token of a person who has signed in. Of one person no more than a few are kept: the oldest make room.
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
		mine, err := collect(&tx.View, scanAPIToken, selectAPITokens+" WHERE created_by = ? ORDER BY created_at, id", t.CreatedBy)
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

// Logout takes the token of a person who has signed in away; one that was made in another way stays.
func (at APITokens) Logout(ctx context.Context, actor Actor, t *APIToken) error {
	if !strings.HasPrefix(t.CreatedBy, loginCreator+" ") {
		return refuse(Conflict, "this API token is of no sign-in; it is revoked with the scope management")
	}
	return at.s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount("DELETE FROM api_tokens WHERE id = ?", t.ID)
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("api_token.logout", "api_token/"+t.ID, t.Name)
	})
}
