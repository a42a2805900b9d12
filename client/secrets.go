package client

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"unicode/utf8"

	"muster/api"
)

const secrets = "/api/v1/cluster/secrets"

// SecretInfo describes a secret without its value.
type SecretInfo = api.SecretInfo

// Secret is a secret with its value.
type Secret struct {
	SecretInfo
	Value []byte
}

// PutSecret stores a value of at most 64 KiB as the next version of a name. Names are 1 to 128 letters, digits, dots,
// dashes and underscores. A repeated call is safe but makes another version.
func (c *Client) PutSecret(ctx context.Context, name string, value []byte) (SecretInfo, error) {
	body := struct {
		Value    string `json:"value"`
		Encoding string `json:"encoding,omitempty"`
	}{Value: string(value)}
	if !utf8.Valid(value) {
		body.Value, body.Encoding = base64.StdEncoding.EncodeToString(value), "base64"
	}
	return enveloped[SecretInfo](ctx, c, request{method: "PUT", path: secretPath(name), body: body, repeat: on503})
}

// Secret returns a secret. It fails with an *Error of status 404 for an unknown name.
func (c *Client) Secret(ctx context.Context, name string) (Secret, error) {
	answer, err := enveloped[struct {
		SecretInfo
		Value    string `json:"value"`
		Encoding string `json:"encoding"`
	}](ctx, c, request{method: "GET", path: secretPath(name), repeat: always})
	s := Secret{SecretInfo: answer.SecretInfo, Value: []byte(answer.Value)}
	switch {
	case err != nil:
	case answer.Encoding == "base64":
		if s.Value, err = base64.StdEncoding.DecodeString(answer.Value); err != nil {
			err = fmt.Errorf("the value of secret %s is not Base64, as its encoding says", name)
		}
	case answer.Encoding != "":
		err = fmt.Errorf("the value of secret %s has the encoding %q, which this client does not know", name,
			answer.Encoding)
	}
	return s, err
}

// Secrets lists the secrets by name, without their values.
func (c *Client) Secrets(ctx context.Context) ([]SecretInfo, error) {
	return enveloped[[]SecretInfo](ctx, c, request{method: "GET", path: secrets, repeat: always, stale: true})
}

// DeleteSecret deletes a secret and all its versions.
func (c *Client) DeleteSecret(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: secretPath(name), repeat: on503})
	return err
}

func secretPath(name string) string { return secrets + "/" + url.PathEscape(name) }
