package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples has example command lines of each command, by its path without the program's name.
var examples = map[string][]string{
	"serve": {
		"muster serve --data /var/lib/muster --api 192.0.2.1:5000 --raft 192.0.2.1:7000",
		"muster serve --data /var/lib/muster --api 192.0.2.2:5000 --raft 192.0.2.2:7000 --join @/run/join-token",
	},
	"dev": {"muster dev", "muster dev --nodes 5 --data ./data", "muster dev --data ./other --datacenter dc2"},

	"members":        {"muster members", "muster members -o json | jq -r '.[].name'"},
	"member list":    {"muster member list"},
	"member show":    {"muster member show node-3"},
	"member drain":   {"muster member drain node-3 --deadline 5m"},
	"member resume":  {"muster member resume node-3"},
	"member promote": {"muster member promote 4"},
	"member remove":  {"muster member drain 4 && muster member remove 4", "muster member remove 4 --force --yes"},

	"join-token create": {
		"TOKEN=$(muster join-token create)",
		"muster join-token create --max-uses 10 --ttl 1h --mode replicate",
	},
	"join-token list":   {"muster join-token list"},
	"join-token revoke": {"muster join-token revoke 01a1fc65191c7f26a32be51ce808dad6"},
	"join-token key-hash": {
		"muster join-token key-hash --data /var/lib/muster",
		"muster join-token create --key-hash 9b1c…",
	},
	"join-keys rotate": {"muster join-keys rotate --grace 1h"},

	"leave":  {"muster leave --data /var/lib/muster", "muster leave --data /var/lib/muster --deadline 10m --yes"},
	"detach": {"muster detach --data /var/lib/muster", "muster detach --data /srv/copy --name lab-1 --datacenter lab"},

	"lease list":   {"muster lease list --member node-3"},
	"lease put":    {"muster lease put session-7 --member node-3 --ttl 5m"},
	"lease delete": {"muster lease delete session-7"},

	"autopilot":        {"muster autopilot"},
	"autopilot zones":  {"muster autopilot zones"},
	"autopilot config": {"muster autopilot config", "muster autopilot config maxVoters=3 cleanupDeadMembers=true"},
	"raft peers":       {"muster raft peers --stale"},
	"raft diff":        {"muster raft diff"},
	"raft transfer":    {"muster raft transfer node-2"},
	"raft remove":      {"muster raft remove node-4 --yes"},

	"api-token create": {
		"TOKEN=$(muster api-token create --name ci --scope cluster:read)",
		"muster api-token create --name ops --scope cluster:manage,keys:manage --ttl 720h",
	},
	"login":  {"export MUSTER_TOKEN=$(muster login)", "muster login --browser > token"},
	"logout": {"muster logout"},

	"api-token list":   {"muster api-token list"},
	"api-token revoke": {"muster api-token revoke 01a1fc65191c7f26a32be51ce808dad6"},

	"key list":      {"muster key list"},
	"key status":    {"muster key status"},
	"key rotate":    {"muster key rotate", "muster key rotate --max-age 720h"},
	"secret put":    {"muster secret put db.password < password.txt"},
	"secret get":    {"muster secret get db.password"},
	"secret list":   {"muster secret list"},
	"secret delete": {"muster secret delete db.password --yes"},
	"ca status":     {"muster ca status"},
	"ca rotate":     {"muster ca rotate --dry-run", "muster ca rotate --kind http --cert ca.crt --key ca.key"},
	"cert list":     {"muster cert list --expires-within 720h"},

	"peering token":     {"TOKEN=$(muster peering token berlin)", "muster peering token berlin --address 192.0.2.1:7000"},
	"peering establish": {`muster peering establish paris "$TOKEN"`},
	"peering list":      {"muster peering list"},
	"peering show":      {"muster peering show berlin"},
	"peering members":   {"muster peering members berlin"},
	"peering delete":    {"muster peering delete berlin --yes"},

	"workload create": {
		"muster workload create /billing/api --user billing",
		"muster workload create /db --unit postgresql.service --node node-2 --host db.example.org",
	},
	"workload list":   {"muster workload list"},
	"workload show":   {"muster workload show /billing/api"},
	"workload delete": {"muster workload delete /billing/api --yes"},
	"workload fetch": {
		"muster workload fetch --socket /run/muster/spiffe.sock",
		"muster workload fetch --write /run/billing/tls --watch",
	},
	"workload jwt": {"TOKEN=$(muster workload jwt --audience https://billing.example.org)"},

	"enroll-token create": {"TOKEN=$(muster enroll-token create)"},
	"enroll-token list":   {"muster enroll-token list"},
	"enroll-token revoke": {"muster enroll-token revoke 01a1fc65191c7f26a32be51ce808dad6"},
	"enrollment list":     {"muster enrollment list"},
	"enrollment revoke":   {"muster enrollment revoke 01a1fc65191c7f26a32be51ce808dad6"},

	"status":         {"muster status", "muster status --addr https://192.0.2.1:5000,https://192.0.2.2:5000"},
	"doctor":         {"muster doctor --data /var/lib/muster"},
	"watch":          {"muster watch --type member,leader"},
	"audit":          {"muster audit --since 1h", "muster audit --follow --action member."},
	"sql":            {`muster sql "SELECT name, drain_state FROM members"`},
	"settings get":   {"muster settings get", "muster settings get enrollment.enabled"},
	"settings set":   {"muster settings set enrollment.enabled=false"},
	"schema":         {"muster schema"},
	"schema migrate": {"muster schema migrate --exclude 3"},
	"upgrade status": {"muster upgrade status"},
	"upgrade plan":   {"muster upgrade plan", "muster upgrade plan --to v1.1.0"},
	"upgrade next": {
		"muster upgrade next --to v1.1.0",
		`muster upgrade next --to v1.1.0 --exec 'ssh "$UPGRADE_HOST" sudo systemctl restart muster'`,
		`muster upgrade next --data /var/lib/muster --member self --exec 'systemctl restart muster'`,
	},
	"backup save":    {"muster backup save cluster.tgz", "muster backup save cluster.tgz --stale"},
	"backup inspect": {"muster backup inspect cluster.tgz"},
	"backup list":    {"muster backup list", "muster backup list -o json | jq -r '.[0].state'"},
	"backup status":  {"muster backup status"},
	"backup run":     {"muster backup run"},
	"backup get":     {"muster backup get 01a1fc65191c7f26a32be51ce808dad6 cluster.tgz.age"},
	"backup verify": {
		"muster backup verify 01a1fc65191c7f26a32be51ce808dad6",
		"muster backup verify cluster.tgz.age --identity operator.key",
	},
	"backup restore": {"muster backup restore cluster.tgz"},
	"recover plan":   {"muster recover plan --data /var/lib/muster"},
	"recover apply":  {"muster recover apply --data /var/lib/muster --dry-run"},
	"recover adopt":  {"muster recover adopt --data /var/lib/muster muster-recovery-node-1.tar.gz"},
	"recover token":  {"TOKEN=$(muster recover token --data /var/lib/muster)"},

	"whoami":       {"muster whoami"},
	"config":       {"muster config"},
	"config check": {"muster config check /etc/muster/config.yaml"},
	"version":      {"muster version -o json", "muster version --licenses"},
	"completion":   {"source <(muster completion bash)"},
}

// addExamples sets the examples of every command.
func addExamples(cmd *cobra.Command) {
	path := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "muster"), " ")
	if lines := examples[path]; len(lines) > 0 {
		cmd.Example = "  " + strings.Join(lines, "\n  ")
	}
	for _, sub := range cmd.Commands() {
		addExamples(sub)
	}
}
