package cli

import "regexp"

// words are parts of the server's sentences that name requests, and what stands for them on the command line.
var words = []struct {
	server *regexp.Regexp
	here   string
}{
	{regexp.MustCompile(`via POST /api/v1/cluster/members/(\d+)/drain`), `with "muster member drain $1"`},
	{regexp.MustCompile(`pass \?force=true`), "give --force"},
	{regexp.MustCompile(`\?force=true`), "--force"},
	{regexp.MustCompile(`POST /api/v1/cluster/join-tokens`), "muster join-token create"},
	{regexp.MustCompile(`; force goes on without them`), "; --force goes on without them"},
}

// inWords puts a sentence of the server into the words of the command line.
func inWords(text string) string {
	for _, w := range words {
		text = w.server.ReplaceAllString(text, w.here)
	}
	return text
}
