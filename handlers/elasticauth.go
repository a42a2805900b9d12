package handlers

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"muster/certs"
	"muster/store"
)

// identifyElastic finds who is calling; its errors are the documented ones.
func (s *Server) identifyElastic(q *request) (*store.APIToken, error) {
	c, ok := credentialOf(q.Request)
	var token *store.APIToken
	var why string
	if ok {
		var err error
		if token, why, err = s.recognise(q, c); err != nil || token != nil {
			return token, err
		}
	}
	q.failed = true
	scheme, rest, _ := strings.Cut(strings.TrimSpace(q.Header.Get("Authorization")), " ")
	switch {
	case ok && c.scheme == "basic":
		return nil, notAuthenticated("unable to authenticate user ["+c.id+"] for REST request ["+q.URL.RequestURI()+"]", "")
	case ok && c.scheme != "apikey":
		why = ""
	case ok:
		why = "API key: " + why
	case strings.EqualFold(scheme, "apikey"):
		why = "API key: " + malformedKey(strings.TrimSpace(rest))
	default:
		return nil, notAuthenticated("missing authentication credentials for REST request ["+q.URL.RequestURI()+"]", "")
	}
	return nil, notAuthenticated("unable to authenticate with provided credentials and anonymous access is not allowed for this request", why)
}

func notAuthenticated(reason, additional string) error {
	return &elasticError{Status: http.StatusUnauthorized, elasticCause: elasticCause{Type: "security_exception", Reason: reason, Additional: additional,
		Header: map[string][]string{"WWW-Authenticate": challenges}}}
}

// malformedKey says what is wrong with something that is not Base64 of id:secret.
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

// recognise finds whose credential it is. When it is nobody's, why says what is wrong with it as an API key, in the words
// of the enrollment family.
func (s *Server) recognise(q *request, c credential) (token *store.APIToken, why string, err error) {
	token, err = s.findToken(q.Context(), q.consistency(), c)
	if err != nil || token != nil || c.id == "" {
		return token, "", err
	}
	hash := certs.HashSecret(c.secret)
	known, err := s.Store.TokenByID(q.Context(), q.consistency(), c.id)
	if err != nil {
		return nil, "", err
	}
	key, err := s.Store.APIKeyByID(q.Context(), q.consistency(), c.id)
	switch {
	case err != nil:
		return nil, "", err
	case key == nil && known == nil:
		return nil, "unable to find apikey with id " + c.id, nil
	case key == nil, subtle.ConstantTimeCompare([]byte(key.SecretHash), []byte(hash)) != 1:
		return nil, "invalid credentials for API key [" + c.id + "]", nil
	}
	if why = key.Refusal(s.Now()); why != "" {
		return nil, why, nil
	}
	if key.UsedUp() {
		if again, err := s.repeats(q, key); err != nil || !again {
			return nil, key.Used(), err
		}
	}
	q.key = key
	return key.Token(), "", nil
}

// repeats tells whether what has used a key up is this very request, an earlier time.
func (s *Server) repeats(q *request, key *store.APIKey) (bool, error) {
	again := q.Header.Get(headerKey)
	if !q.enrolls || again == "" || len(again) > maxIdempotencyKey {
		return false, nil
	}
	return s.Store.Answered(q.Context(), store.Actor{Accessor: key.ID, IdempotencyKey: again, RequestHash: requestHash(q)})
}
