package native_test

import (
	"encoding/json"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// TestJoinTokenZone: a label that would put a machine into no zone is refused where it is written, and not ignored at
// the join.
func TestJoinTokenZone(t *testing.T) {
	s := sole.New(t)
	for zone, code := range map[string]int{
		"rack-2":                201,
		"none":                  201,
		"":                      400,
		"A":                     400,
		"../x":                  400,
		"-a":                    400,
		"a b":                   400,
		"é":                     400,
		"<b>":                   400,
		strings.Repeat("x", 64): 400,
	} {
		body, err := json.Marshal(map[string]any{"labels": map[string]string{"zone": zone}})
		if err != nil {
			t.Fatal(err)
		}
		w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, string(body))
		if w.Code != code || code == 400 &&
			!strings.Contains(w.Body.String(), "labels: the zone must be 1 to 63 lower-case letters") {
			t.Errorf("zone %q: %d %s, want %d", zone, w.Code, w.Body, code)
		}
	}
}
