package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/cli"
	"muster/handlers/native/openapi"
	"muster/store"
)

// crooked lists phrases that texts for people avoid, each with a better one.
var crooked = []struct {
	phrase *regexp.Regexp
	better string
}{
	{regexp.MustCompile(`\banew\b`), "again, or new"},
	{regexp.MustCompile(`\bfor ever\b`), "permanently, or without end"},
	{regexp.MustCompile(`\btells whether\b`), "reports whether"},
	{regexp.MustCompile(`\bthere is none\b`), "without one"},
	{regexp.MustCompile(`\b(that|which) (is|was) asked\b`), "the contacted member"},
	{regexp.MustCompile(`\bhold(s|ing)? (it|them|the \w+) back\b`), "delays, or blocks"},
	{regexp.MustCompile(`\bmakes? no sense\b`), "is invalid"},
	{regexp.MustCompile(`\bnobody knows\b`), "is unknown"},
	{regexp.MustCompile(`\bis under way\b`), "is running"},
	{regexp.MustCompile(`\bgo(es)? on by itself\b`), "continues by itself"},
}

// TestWords: the help of every command, the description of the API and the documents avoid crooked phrases.
func TestWords(t *testing.T) {
	texts := map[string]string{"openapi": string(openapi.Document())}
	helpOf(cli.Command(), texts)
	for _, pattern := range []string{"*.md", "docs/*.md", "handlers/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			texts[f] = string(text)
		}
	}
	delete(texts, "CHANGELOG.md") // what was released stays as it was written
	if len(texts) < 100 {
		t.Fatalf("only %d texts", len(texts))
	}
	for name, text := range texts {
		text = strings.Join(strings.Fields(text), " ")
		for _, c := range crooked {
			if at := c.phrase.FindStringIndex(text); at != nil {
				t.Errorf("%s: write %q: … %s …", name, c.better, text[max(at[0]-40, 0):min(at[1]+40, len(text))])
			}
		}
	}
}

// helpOf adds the help of a command and of those below it.
func helpOf(cmd *cobra.Command, texts map[string]string) {
	text := cmd.Short + "\n" + cmd.Long
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { text += "\n" + f.Usage })
	texts[cmd.CommandPath()] = text
	for _, c := range cmd.Commands() {
		helpOf(c, texts)
	}
}

// TestEventTypesAreListed: the documents name every type of events.
func TestEventTypesAreListed(t *testing.T) {
	page, err := os.ReadFile("docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "* `type=` selects: ")
	list, _, _ = strings.Cut(list, "\n* ")
	for _, name := range store.EventTypes {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(list) {
			t.Errorf("docs/metrics.md does not list the type %s", name)
		}
	}
}
