package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// check runs "muster config check" on the text of a file.
func checkConfig(t *testing.T, text string, mode os.FileMode, args ...string) (file string, code int, stderr string) {
	t.Helper()
	file = write(t, filepath.Join(t.TempDir(), "config.yaml"), text)
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = run(t, append([]string{"config", "check", file}, args...)...)
	return file, code, stderr
}

// TestConfigFile: a bad file is refused with its name, the line and the rule.
func TestConfigFile(t *testing.T) {
	outside(t)
	for _, x := range []struct {
		name, text string
		mode       os.FileMode
		want       string // "" for a good one; FILE is the file's name
	}{
		{"good",
			"data: d\napi: 127.0.0.1:6000\nlog-format: json\nsnapshot-threshold: 512\nsnapshot-trailing: 512\nrejoin: false\n",
			0o644, ""},
		{"lists", "data: d\ndrain-hook:\n- a=/bin/true\n- b=echo x, y\npeer: [2=127.0.0.1:7001, 3=127.0.0.1:7002]\n", 0o644,
			""},
		{"comments and nothing", "# nothing\ndata: d\n", 0o644, ""},
		{"unknown", "data: d\napii: 127.0.0.1:1\n", 0o644, `FILE:2: there is no setting "apii"; did you mean api?`},
		{"unknown, nothing near", "data: d\n\ncolour: red\n", 0o644, `FILE:3: there is no setting "colour" (see`},
		{"global flags are none", "data: d\ntoken-file: x\n", 0o644, `FILE:2: there is no setting "token-file"`},
		{"a number", "data: d\nevent-window: many\n", 0o644, `FILE:2: event-window must be a whole number: "many" is not`},
		{"a duration", "data: d\nnetwork-latency: 24\n", 0o644,
			`FILE:2: network-latency must be a duration such as 500ms, 10s or 2h: "24" is not`},
		{"true or false", "data: d\nrejoin: perhaps\n", 0o644, `FILE:2: rejoin must be true or false: "perhaps" is not`},
		{"a number that is none", "data: d\nsnapshot-threshold: 1e3\n", 0o644,
			`FILE:2: snapshot-threshold must be a whole number, not negative: "1e3" is not`},
		{"a peer that is none", "data: d\npeer: [x]\n", 0o644, `FILE:2: peer: "x" is not ID=HOST:PORT`},
		{"itself", "data: d\nconfig: other.yaml\n", 0o644, "FILE:2: config names this file and cannot stand in it"},
		{"nearly itself", "data: d\nconfigs: other.yaml\n", 0o644, `FILE:2: there is no setting "configs" (see`},
		{"syntax in the first line", "data: d: e\n", 0o644, "FILE: line 1: mapping values"},
		{"a long name", "data: d\nname: " + strings.Repeat("x", 65) + "\n", 0o644, "--name: the name must be 1 to 64 bytes"},
		{"a name of two lines", "data: d\nname: \"a\\nb\"\n", 0o644, "--name: the name must be 1 to 64 bytes"},
		{"a number for a name", "data: d\nname: 12\n", 0o644, "--name: the name must not be a whole number"},
		{"a socket beside the member", "data: d\nspiffe-socket: spiffe.sock\n", 0o644,
			"--spiffe-socket must be an absolute path"},
		{"a list for one value", "data: d\nname: [a, b]\n", 0o644, "FILE:2: name must be one value, not a list"},
		{"a mapping for a value", "data: d\nname: {a: b}\n", 0o644, "FILE:2: name must be text, a number, true or false"},
		{"empty", "data: d\nname:\n", 0o644, "FILE:2: name is given but empty; leave it out or give it a value"},
		{"empty text", "data: d\nname: ''\n", 0o644, "FILE:2: name is given but empty"},
		{"an empty list", "data: d\npeer: []\n", 0o644, "FILE:2: peer is given but empty"},
		{"an empty file", "\n", 0o644, "FILE is empty; omit the file"},
		{"twice", "data: d\nname: a\nname: b\n", 0o644, "FILE:3: name stands here twice"},
		{"no mapping", "- data\n", 0o644, "FILE: line 1: the file must have lines of the form NAME: VALUE"},
		{"no YAML", "data: [d\n", 0o644, "FILE: "},
		{"two documents", "data: d\n---\nname: x\n", 0o644, "FILE: it holds more than one document"},
		{"a rule of a flag", "data: d\nevent-window: 3\n", 0o644, "--event-window must be between 16 and 1000000, not 3"},
		{"a rule of an address", "data: d\napi: 0.0.0.0:5000\n", 0o644, "--api 0.0.0.0:5000 listens everywhere"},
		{"a mode that is none", "data: d\nmode: half\n", 0o644, `--mode must be full or replicate, not "half"`},
		{"a datacenter that is none", "data: d\ndatacenter: DC_1\n", 0o644,
			`--datacenter must be a DNS label in lower case, not "DC_1"`},
		{"an overlay that is none", "data: d\noverlay-slice: 0\n", 0o644, "slice"},
		{"one address for two", "data: d\napi: 127.0.0.1:6000\nraft: 127.0.0.1:6000\n", 0o644,
			"--api and --raft cannot share the address 127.0.0.1:6000"},
		{"without TLS at the same address", "data: d\nplain-http: 127.0.0.1:7000\n", 0o644,
			"--plain-http and --raft cannot share the address 127.0.0.1:7000"},
		{"no latency", "data: d\nnetwork-latency: 0s\n", 0o644, "--network-latency must be between 1ms and 5s, not 0s"},
		{"elections of hours", "data: d\nnetwork-latency: 1h\n", 0o644,
			"--network-latency must be between 1ms and 5s, not 1h0m0s"},
		{"a token that others can read", "data: d\njoin: AQAAsecret\n", 0o644,
			"FILE:2: join holds a token, and others may read this file (mode 0644)"},
		{"a token for the owner alone", "data: d\njoin: AQAAsecret\n", 0o600, ""},
		{"a token in a file of its own", "data: d\njoin: '@/does/not/exist'\n", 0o644, "the token file cannot be read"},
		{"no data", "name: x\n", 0o644, "--data is missing"},
	} {
		t.Run(x.name, func(t *testing.T) {
			file, code, stderr := checkConfig(t, x.text, x.mode)
			want := strings.ReplaceAll(x.want, "FILE", file)
			if (code == 0) != (want == "") || !strings.Contains(stderr, want) {
				t.Errorf("exit %d, %q; want %q", code, stderr, want)
			}
			if strings.Contains(stderr, "AQAAsecret") {
				t.Error("the token is shown")
			}
		})
	}
	if code, _, stderr := run(t, "config", "check", "/does/not/exist"); code != 2 ||
		!strings.Contains(stderr, "/does/not/exist") {
		t.Errorf("a file that is not there: exit %d, %q", code, stderr)
	}
}

// TestConfigPrecedence: the command line is stronger than the environment, and that is stronger than the file.
func TestConfigPrecedence(t *testing.T) {
	outside(t)
	wrong := "event-window: 3\n"
	if _, code, stderr := checkConfig(t, "data: d\n"+wrong, 0o644, "--event-window", "100"); code != 0 {
		t.Errorf("flag over file: %d %s", code, stderr)
	}
	t.Setenv("MUSTER_EVENT_WINDOW", "100")
	if _, code, stderr := checkConfig(t, "data: d\n"+wrong, 0o644); code != 0 {
		t.Errorf("environment over file: %d %s", code, stderr)
	}
	t.Setenv("MUSTER_EVENT_WINDOW", "3")
	if _, code, stderr := checkConfig(t, "data: d\n", 0o644, "--event-window", "100"); code != 0 {
		t.Errorf("flag over environment: %d %s", code, stderr)
	}
	t.Setenv("MUSTER_EVENT_WINDOW", "many")
	if _, code, stderr := checkConfig(t, "data: d\n", 0o644); code != 2 ||
		!strings.Contains(stderr, "MUSTER_EVENT_WINDOW must be a whole number") {
		t.Errorf("a bad variable: %d %s", code, stderr)
	}
}

// TestEveryServeFlag can stand in the environment and in a file under its own name.
func TestEveryServeFlag(t *testing.T) {
	outside(t)
	serve, _, err := Command().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	ownFlags(serve).VisitAll(func(f *pflag.Flag) {
		if other := names[variable(f.Name)]; other != "" {
			t.Errorf("--%s and --%s have the same variable", f.Name, other)
		}
		names[variable(f.Name)] = f.Name
		if f.Hidden || f.Name == "config" || f.Name == "help" {
			return
		}
		_, code, stderr := checkConfig(t, f.Name+": []\n", 0o600)
		if code == 0 || strings.Contains(stderr, "there is no setting") {
			t.Errorf("%s in a file: exit %d, %s", f.Name, code, stderr)
		}
	})
	if len(names) < 30 || names["MUSTER_TOKEN"]+names["MUSTER_ADDR"]+names["MUSTER_CACERT"] != "" {
		t.Errorf("%d variables: %v", len(names), names)
	}
}

// TestConfigShow says where the address, the token and the CA were found, and never the token.
func TestConfigShow(t *testing.T) {
	outside(t)
	t.Setenv("MUSTER_ADDR", "https://192.0.2.1:5000")
	token := write(t, filepath.Join(t.TempDir(), "token"), "secret-token\n")
	code, stdout, stderr := run(t, "config", "--token-file", token)
	if code != 0 || strings.Contains(stdout+stderr, "secret-token") {
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	for _, want := range []string{"https://192.0.2.1:5000  MUSTER_ADDR\n", "(not shown)             --token-file\n",
		"those of this machine   nothing names one: the default\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it lacks %q:\n%s", want, stdout)
		}
	}
}
