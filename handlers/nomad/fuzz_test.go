package nomad

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/handlerstest"
)

// FuzzAutopilot feeds bodies and parameters of the autopilot configuration.
func FuzzAutopilot(f *testing.F) {
	f.Add([]byte(`{"LastContactThreshold":"200ms","MaxTrailingLogs":250,"MinQuorum":3}`), "cas=1&stale=")
	f.Add([]byte(`{"LastContactThreshold":1,"MinQuorum":-1}`), "cas=-1&region=x")
	f.Add([]byte(`{"ServerStabilizationTime":"9999999999h","EnableCustomUpgrades":true}`),
		"cas=99999999999999999999&stale=x")
	f.Fuzz(func(t *testing.T, body []byte, query string) {
		r := httptest.NewRequest(http.MethodPut, "/v1/operator/autopilot/configuration", http.NoBody)
		r.URL.RawQuery = query
		var known *handlers.Error
		if err := checkStale(r); err != nil && !errors.As(err, &known) { // another region is 500, as the original has it
			t.Fatalf("no refusal: %v", err)
		}
		if _, err := casOf(r); err != nil {
			handlerstest.RefusedWell(t, err)
		}
		in, err := parseAutopilot(body)
		if err != nil {
			handlerstest.RefusedWell(t, err)
			return
		}
		in.set(&autopilot.Config{})
	})
}
