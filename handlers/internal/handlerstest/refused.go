// Package handlerstest has helpers for tests of decoders, which need no member.
package handlerstest

import (
	"errors"
	"testing"

	"muster/handlers"
)

// RefusedWell fails unless err is an error that callers may see.
func RefusedWell(t *testing.T, err error) {
	t.Helper()
	var known *handlers.Error
	var own handlers.OwnError
	switch {
	case errors.As(err, &known) && known.Status >= 400 && known.Status < 500 && known.Text != "":
	case errors.As(err, &own) && own.HTTPStatus() >= 400 && own.HTTPStatus() < 500:
	default:
		t.Fatalf("no refusal: %v", err)
	}
}
