package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	refusal   = regexp.MustCompile(`\b(?:conflict|invalid|refuse|[fF]ail|bad)\(.*?"((?:[^"\\]|\\.)*)"`)
	asRequest = regexp.MustCompile(`/(?:api/)?v1/|\?[a-z]+=`)
)

// TestRefusalsSpeakOfCommands: no refusal of the endpoints that the commands use names a path or a query once the
// command line has put it into its own words.
func TestRefusalsSpeakOfCommands(t *testing.T) {
	var seen int
	for _, dir := range []string{"../handlers/ella", "../handlers/native", "../handlers/nomad", "../store"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, m := range refusal.FindAllStringSubmatch(string(source), -1) {
				seen++
				text := strings.NewReplacer("%d", "3", "%s", "x", "%q", "x", "%v", "x").Replace(m[1])
				if asRequest.MatchString(inWords(text)) {
					t.Errorf("%s: %q is shown as %q", file, text, inWords(text))
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d refusals were found", seen)
	}
}
