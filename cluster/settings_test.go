package cluster

import (
	"strings"
	"testing"

	"muster/cluster/autopilot"
)

// TestMergeNamesTheSetting: whatever is wrong with a value, the sentence begins with the setting and has its rule.
func TestMergeNamesTheSetting(t *testing.T) {
	names, err := settingNames()
	if err != nil || len(names) < 11 {
		t.Fatalf("settings: %v, %v", names, err)
	}
	for _, name := range names {
		for _, value := range []string{`{}`, `[1]`, `"soon"`, `1.5`, `""`, `1e400`} {
			_, err := merge(autopilot.DefaultConfig(), []byte(`{"`+name+`":`+value+`}`))
			if err == nil || !strings.HasPrefix(err.Error(), name+" must be ") {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
	for body, want := range map[string]string{
		`{"maxVoter":3}`:          "maxVoter is not a setting of autopilot; did you mean maxVoters?",
		`{"maxVoters":3,"x":1}`:   "x is not a setting of autopilot; use one of cleanupDeadMembers, ",
		`[]`:                      "the body must be a JSON object",
		`{"maxVoters":3} trailer`: "the body must be a JSON object",
	} {
		if _, err := merge(autopilot.DefaultConfig(), []byte(body)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	text, err := merge(autopilot.DefaultConfig(), []byte(`{"maxVoters":3,"deadAfter":"48h","redundancyZones":true}`))
	if err != nil || !strings.Contains(string(text), `"maxVoters":3`) ||
		!strings.Contains(string(text), `"deadAfter":"48h0m0s"`) {
		t.Errorf("a good patch: %s, %v", text, err)
	}
}
