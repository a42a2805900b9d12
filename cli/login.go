package cli

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"muster/cli/console"
	"muster/client"
)

const loginWithin = 10 * time.Minute // for the person to confirm

func newLoginCommand(env *environment) *cobra.Command {
	var here bool
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Sign in as yourself, with the cluster's identity provider; the token alone is printed on stdout",
		Long: `Sign in at the OpenID provider of the setting oidc.issuer. The command shows an address and a code for a
browser anywhere (device flow); with --browser, or if the provider has no device flow, it shows an address for a
browser on this machine. It prints an API token with the scopes from oidc.rules and the lifetime of oidc.lifetime:

    export MUSTER_TOKEN=$(muster login)

"muster logout" ends it earlier.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), loginWithin)
			defer cancel()
			c, err := env.client(ctx)
			if err != nil {
				return err
			}
			how, err := c.LoginMethods(ctx)
			switch {
			case err != nil:
				return err
			case how.Issuer == "":
				return errors.New("sign-in is off in this cluster: the setting oidc.issuer is none")
			case how.Problem != "":
				return errors.New(how.Problem + "; API tokens work as before")
			}
			var t client.NewAPIToken
			if here || !how.Device {
				t, err = env.loginHere(ctx, c, how)
			} else {
				t, err = env.loginElsewhere(ctx, c)
			}
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("nobody said yes within %s", loginWithin)
			}
			if err != nil {
				return err
			}
			return env.secret(t, t.Token, "signed in as %s for %s until %s", t.Name, strings.Join(t.Scopes, ", "),
				console.Cell(t.ExpiresAt))
		},
	}
	cmd.Flags().BoolVar(&here, "browser", false,
		"with a browser on this machine, which returns the code to a port of this command")
	return cmd
}

// loginElsewhere prints a code and blocks until it was entered in a browser (RFC 8628).
func (e *environment) loginElsewhere(ctx context.Context, c *client.Client) (t client.NewAPIToken, err error) {
	d, err := c.BeginDeviceLogin(ctx)
	if err != nil {
		return t, err
	}
	e.say("open %s and enter %s", console.Printable(d.VerificationURI), console.Printable(d.UserCode))
	if d.VerificationURIComplete != "" {
		e.say("or open %s", console.Printable(d.VerificationURIComplete))
	}
	interval := time.Duration(d.Interval) * time.Second
	for {
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return t, ctx.Err()
		}
		var slower bool
		if t, slower, err = c.PollDeviceLogin(ctx, d.DeviceCode); err != nil || t.Token != "" {
			return t, err
		}
		if slower {
			interval += 5 * time.Second // RFC 8628, section 3.5
		}
	}
}

// loginHere receives the code from a browser on this machine (RFC 8252, section 7.3).
func (e *environment) loginHere(ctx context.Context, c *client.Client, how client.LoginMethods) (t client.NewAPIToken,
	err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return t, err
	}
	code := client.CodeLogin{
		Verifier:    oauth2.GenerateVerifier(),
		RedirectURI: "http://" + listener.Addr().String() + "/callback",
		Nonce:       randomText(),
	}
	state := randomText()
	back := make(chan url.Values, 1)
	server := &http.Server{Handler: callback(state, back), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	cfg := oauth2.Config{ClientID: how.ClientID, RedirectURL: code.RedirectURI, Scopes: how.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: how.AuthorizationEndpoint}}
	e.say("open %s", console.Printable(cfg.AuthCodeURL(state, oauth2.S256ChallengeOption(code.Verifier),
		oauth2.SetAuthURLParam("nonce", code.Nonce))))
	select {
	case answer := <-back:
		if code.Code = answer.Get("code"); code.Code == "" {
			return t, fmt.Errorf("the identity provider says %s", console.Printable(answer.Get("error")))
		}
	case <-ctx.Done():
		return t, ctx.Err()
	}
	return c.LogIn(ctx, code)
}

// callback accepts the first answer with the right state.
func callback(state string, back chan<- url.Values) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/callback" || q.Get("state") != state {
			http.Error(w, "this is not the expected answer", http.StatusBadRequest)
			return
		}
		select {
		case back <- q:
		default:
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("muster has your answer. You can close this page.\n"))
	})
}

func randomText() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func newLogoutCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "End the sign-in whose token is used",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.LogOut(cmd.Context()); err != nil {
				return err
			}
			return env.done("signed out")
		},
	}
}
