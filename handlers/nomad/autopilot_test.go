package nomad_test

import (
	"strings"
	"testing"

	"muster/cluster"
	"muster/handlers/internal/sole"
)

// TestAutopilotSettings: the settings as this family knows them, who may replace them and what is refused, from each
// member in turn.
func TestAutopilotSettings(t *testing.T) {
	t.Parallel()
	u := sole.NewPair(t, func(c *sole.Config) { c.Autopilot = cluster.Settings{Store: c.Store} }).Root()
	const path, ours = "/v1/operator/autopilot/configuration", "/api/v1/cluster/autopilot/config"
	const first = `{"LastContactThreshold":"2s","ServerStabilizationTime":"10s","CleanupDeadServers":false,` +
		`"MaxTrailingLogs":10000,"MinQuorum":2,` +
		`"EnableRedundancyZones":false,"DisableUpgradeMigration":true,"EnableCustomUpgrades":false,"CreateIndex":1,` +
		`"ModifyIndex":1}`
	for range 2 {
		u.Do("GET", path, "").Expect(t, "defaults", 200, first)
	}
	for range 2 {
		u.Do("GET", path+"?stale&pretty", "").Expect(t, "defaults, stale and pretty", 200, first+"\n")
	}
	for _, x := range []struct {
		query, body string
		status      int
		want        string
	}{
		{"", "", 400, "Error parsing autopilot config: Request body is empty"},
		{"", "[1]", 400, "Error parsing autopilot config: the body must be a JSON object"},
		{"", "{", 400, "Error parsing autopilot config: the body must be a JSON object"},
		{"", `{"LastContactThreshold":5}`, 400,
			"Error parsing autopilot config: LastContactThreshold must be a string, not a number"},
		{"", `{"ServerStabilizationTime":"soon"}`, 400,
			`Error parsing autopilot config: ServerStabilizationTime must be a duration such as "200ms", not "soon"`},
		{"", `{"LastContactThreshold":"-1s"}`, 400,
			"Error parsing autopilot config: LastContactThreshold must be between 100ms and 10m0s, not -1s"},
		{"", `{"MaxTrailingLogs":-1}`, 400,
			"Error parsing autopilot config: MaxTrailingLogs must be a uint64, not a number -1"},
		{"", `{"MinQuorum":6}`, 400, "Error parsing autopilot config: MinQuorum must be between 1 and maxVoters (5), not 6"},
		{"", `{"EnableRedundancyZones":1}`, 400,
			"Error parsing autopilot config: EnableRedundancyZones must be a bool, not a number"},
		{"?cas=abc", first, 400, `Error parsing cas value: strconv.ParseUint: parsing "abc": invalid syntax`},
		{"?cas=77", first, 200, "false"},
	} {
		for range 2 {
			u.Do("PUT", path+x.query, x.body).Expect(t, x.query+x.body, x.status, x.want)
		}
	}
	u.Do("GET", path, "").Expect(t, "nothing has changed", 200, first)
	u.Do("PUT", path+"?cas=1",
		`{"ServerStabilizationTime":"3s","MaxTrailingLogs":777,"CleanupDeadServers":true}`).Expect(t, "cas", 200, "true")
	own := u.Do("GET", ours, "")
	if !strings.Contains(own.Body,
		`"stabilization":"3s","lastContactThreshold":"2s","maxLagRevisions":777,"maxLagTime":"30s",`+
			`"cleanupDeadMembers":true`) {
		t.Errorf("our own API says %v", own)
	}
	for range 2 {
		u.Do("PUT", path+"?cas=1", first).Expect(t, "an old cas", 200, "false")
	}
	// What only our own API knows stays; what this family leaves out goes back.
	u.Do("PUT", ours, `{"maxVoters":7}`)
	u.Do("PUT", path, first).Expect(t, "full replace", 200, "true")
	if own := u.Do("GET", ours, ""); !strings.Contains(own.Body, `"maxVoters":7`) ||
		!strings.Contains(own.Body, `"maxLagRevisions":10000`) {
		t.Errorf("after a full replace our own API says %v", own)
	}
}
