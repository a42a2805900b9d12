package native

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"muster/api"
	"muster/certs"
	"muster/handlers"
	"muster/handlers/signin"
	"muster/store"
)

// People identifies people through an OpenID provider.
type People interface {
	Endpoints(ctx context.Context, p signin.Provider) (signin.Endpoints, error)
	Device(ctx context.Context, p signin.Provider) (*oauth2.DeviceAuthResponse, error)
	Exchange(ctx context.Context, p signin.Provider, code signin.Code) (signin.Person, error)
	Poll(ctx context.Context, p signin.Provider, deviceCode string) (signin.Person, error)
	Verify(ctx context.Context, p signin.Provider, idToken, nonce string) (signin.Person, error)
}

var errNoSignIn = handlers.Fail(http.StatusNotFound, "sign-in is off in this cluster: the setting oidc.issuer is none")

func (s *service) loginRoutes() []handlers.Route {
	return []handlers.Route{
		{Method: "GET", Path: "/api/v1/login", Serve: s.howToLogIn},
		{Method: "POST", Path: "/api/v1/login", Serve: s.logIn},
		{Method: "DELETE", Path: "/api/v1/login", Admit: handlers.AdmitKnown, Serve: s.logOut},
		{Method: "POST", Path: "/api/v1/login/device", Serve: s.beginDevice},
	}
}

// howToLogIn serves the sign-in methods to the page and the command line.
func (s *service) howToLogIn(q *handlers.Request) error {
	set, err := s.Settings.Login(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	if set.Issuer == "" {
		return q.Result(http.StatusOK, api.LoginMethods{})
	}
	p := signin.Provider{Issuer: set.Issuer, ClientID: set.ClientID, Scopes: set.Ask}
	out := api.LoginMethods{Issuer: p.Issuer, ClientID: p.ClientID, Scopes: p.Asks()}
	ends, err := s.People.Endpoints(q.Context(), p)
	switch {
	case errors.Is(err, signin.ErrBusy):
		return s.notSignedIn(q, err)
	case err != nil:
		out.Problem = signin.ErrAway.Error()
	}
	out.AuthorizationEndpoint, out.Device = ends.Authorization, ends.Device
	return q.Result(http.StatusOK, out)
}

// provider returns the configured OpenID provider.
func (s *service) provider(q *handlers.Request) (p signin.Provider, set store.LoginSettings, err error) {
	if set, err = s.Settings.Login(q.Context(), store.Linearisable); err != nil {
		return p, set, err
	}
	if set.Issuer == "" {
		return p, set, errNoSignIn
	}
	p = signin.Provider{Issuer: set.Issuer, ClientID: set.ClientID, Audience: set.Audience, Scopes: set.Ask}
	if set.Secret != "" {
		secret, err := s.Secrets.Get(q.Context(), store.Linearisable, set.Secret)
		if err != nil {
			return p, set, err
		}
		if secret == nil {
			return p, set, handlers.Fail(http.StatusServiceUnavailable,
				"nobody can sign in: the secret that the setting oidc.client_secret names does not exist")
		}
		p.Secret = string(secret.Value)
	}
	return p, set, nil
}

func (s *service) beginDevice(q *handlers.Request) error {
	p, _, err := s.provider(q)
	if err != nil {
		return err
	}
	d, err := s.People.Device(q.Context(), p)
	if err != nil {
		return s.notSignedIn(q, err)
	}
	return q.Result(http.StatusOK, api.DeviceLogin{
		DeviceCode:              d.DeviceCode,
		UserCode:                d.UserCode,
		VerificationURI:         d.VerificationURI,
		VerificationURIComplete: d.VerificationURIComplete,
		Interval:                max(d.Interval, 1),
		ExpiresAt:               api.Time(d.Expiry),
	})
}

// logIn issues an API token with the scopes that the rules grant for the person's claims. It takes an authorization
// code with its PKCE verifier, a device code, or an ID token.
func (s *service) logIn(q *handlers.Request) error {
	ask, err := s.shown(q)
	if err != nil {
		return err
	}
	p, set, err := s.provider(q)
	if err != nil {
		return err
	}
	who, err := ask(p)
	if err != nil {
		return s.notSignedIn(q, err)
	}
	name, scopes := set.Called(who.Subject, who.Claims), set.Scopes(who.Claims)
	if len(scopes) == 0 {
		q.Failed = true
		return handlers.Fail(http.StatusForbidden,
			fmt.Sprintf("%s is known to the identity provider, and no rule of oidc.rules gives that person a scope here", name))
	}
	ends := s.Now().Add(set.Lifetime).Truncate(time.Second)
	t := store.APIToken{
		ID:        store.NewID(),
		Name:      name,
		Scopes:    scopes,
		Secret:    certs.NewSecret(),
		ExpiresAt: &ends,
	}
	t.SecretHash = certs.HashSecret(t.Secret)
	if t, err = s.APITokens.Login(q.Context(), q.Actor, t, who.Subject); err != nil {
		return err
	}
	return q.Result(http.StatusCreated, showAPIToken(&t))
}

// shown reads the person's credential.
func (s *service) shown(q *handlers.Request) (func(signin.Provider) (signin.Person, error), error) {
	f, err := handlers.ParseFields(q.Content)
	if err != nil {
		return nil, err
	}
	const most = 16 << 10
	idToken, device := f.Line("idToken", false, 1, most), f.Line("deviceCode", false, 1, most)
	code := signin.Code{
		Code:        f.Line("code", false, 1, most),
		Verifier:    f.Line("codeVerifier", false, 43, 128), // RFC 7636, section 4.1
		RedirectURI: f.Line("redirectUri", false, 1, 1024),
		Nonce:       f.Line("nonce", false, 1, 255),
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	given := 0
	for _, text := range []string{idToken, device, code.Code} {
		if text != "" {
			given++
		}
	}
	ctx := q.Context()
	switch {
	case given != 1:
		return nil, handlers.Fail(http.StatusBadRequest, "one of code, deviceCode and idToken must be given")
	case code.Code != "" && (code.Verifier == "" || code.RedirectURI == ""):
		return nil, handlers.Fail(http.StatusBadRequest, "code takes codeVerifier and redirectUri as well")
	case idToken != "":
		return func(p signin.Provider) (signin.Person, error) { return s.People.Verify(ctx, p, idToken, code.Nonce) }, nil
	case device != "":
		return func(p signin.Provider) (signin.Person, error) { return s.People.Poll(ctx, p, device) }, nil
	}
	return func(p signin.Provider) (signin.Person, error) { return s.People.Exchange(ctx, p, code) }, nil
}

// notSignedIn words a failed sign-in.
func (s *service) notSignedIn(q *handlers.Request, err error) error {
	var refused *signin.RefusedError
	switch {
	case errors.Is(err, signin.ErrPending):
		return q.Result(http.StatusAccepted, api.LoginPending{Message: err.Error(), Slower: errors.Is(err, signin.ErrSlower)})
	case errors.As(err, &refused):
		q.Failed = true
		return handlers.Fail(http.StatusUnauthorized, refused.Why)
	case errors.Is(err, signin.ErrBusy):
		q.W.Header().Set("Retry-After", "1")
		return handlers.Fail(http.StatusTooManyRequests, signin.ErrBusy.Error())
	case errors.Is(err, signin.ErrAway):
		q.W.Header().Set("Retry-After", "5")
		return handlers.Fail(http.StatusServiceUnavailable,
			signin.ErrAway.Error()+"; whoever is signed in stays so, and API tokens work as before")
	}
	return err
}

// logOut revokes the token of the request.
func (s *service) logOut(q *handlers.Request) error {
	if err := s.APITokens.Logout(q.Context(), q.Actor, q.Token); err != nil {
		return err
	}
	return q.Result(http.StatusOK, handlers.Message{Message: "signed out"})
}
