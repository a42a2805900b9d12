package elastic

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"muster/handlers"
)

// notIdentified words a failed authentication as documented.
func notIdentified(q *handlers.Request, d *handlers.Denial, now time.Time) error {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(q.Header.Get("Authorization")), " ")
	c, why := d.Credential, ""
	switch {
	case d.Reason == handlers.NoCredential && strings.EqualFold(scheme, "apikey"):
		why = "API key: " + malformedKey(strings.TrimSpace(rest))
	case d.Reason == handlers.NoCredential:
		return notAuthenticated("missing authentication credentials for REST request ["+q.URL.RequestURI()+"]", "")
	case c.Scheme == "basic":
		return notAuthenticated("unable to authenticate user ["+c.ID+"] for REST request ["+q.URL.RequestURI()+"]", "")
	case c.Scheme == "apikey":
		why = "API key: " + keyRefusal(d, now)
	}
	return notAuthenticated(unableToAuthenticate, why)
}

// keyRefusal words the refusal of an API key.
func keyRefusal(d *handlers.Denial, now time.Time) string {
	switch d.Reason {
	case handlers.UnknownKey:
		return "unable to find apikey with id " + d.Credential.ID
	case handlers.KeyEnded:
		return d.Key.Refusal(now)
	case handlers.KeyUsedUp:
		return d.Key.Used()
	}
	return "invalid credentials for API key [" + d.Credential.ID + "]"
}

const unableToAuthenticate = "unable to authenticate with provided credentials and anonymous access is not allowed " +
	"for this request"

func notAuthenticated(reason, additional string) error {
	return &apiError{Status: http.StatusUnauthorized,
		cause: cause{Type: "security_exception", Reason: reason, Additional: additional,
			Header: map[string][]string{"WWW-Authenticate": challenges}}}
}

// malformedKey describes the error in a credential that is not the Base64 of id:secret.
func malformedKey(text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
	if i := strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }); i >= 0 {
		return fmt.Sprintf("Illegal base64 character %x", text[i])
	}
	if _, err := base64.StdEncoding.DecodeString(text); err != nil {
		return "Input byte array has wrong 4-byte ending unit"
	}
	return "invalid ApiKey value"
}
