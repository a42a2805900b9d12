package docs

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// block is one fenced block of commands.
type block struct {
	file  string
	line  int // of its fence
	needs needs
	steps []step
}

// needs is what the comment before a block says.
type needs struct {
	skip    string // why it is not run
	fresh   bool   // a new place
	cluster int    // members of the cluster there
	on      int    // which member /var/lib/muster and DIR are
	exit    int    // of the last command
	setup   []string
}

// step is one command and what it prints.
type step struct {
	line    int
	machine int // by the letter of its prompt; 0 without one
	command string
	prints  []string
}

var (
	fence   = regexp.MustCompile("^( *)```([a-z]*) *$")
	comment = regexp.MustCompile(`^ *<!-- run:(.*)$`)
	prompt  = regexp.MustCompile(`^([A-Z]?)[$#] (.*)$`)
)

// parse finds the blocks of commands of a document: those that are marked as console or sh.
func parse(file, text string) (blocks []block, err error) {
	var next *needs
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		if m := comment.FindStringSubmatch(lines[i]); m != nil {
			from := i
			said := m[1]
			for !strings.Contains(lines[i], "-->") {
				if i++; i == len(lines) {
					return nil, fmt.Errorf("%s:%d: the comment has no end", file, from+1)
				}
				said += "\n" + lines[i]
			}
			said, _, _ = strings.Cut(said, "-->")
			n, err := parseNeeds(said)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, from+1, err)
			}
			next = &n
			continue
		}
		m := fence.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		b := block{file: file, line: i + 1, needs: needs{on: 1}}
		if next != nil {
			b.needs, next = *next, nil
		}
		var body []string
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
			body = append(body, strings.TrimPrefix(lines[i], m[1]))
		}
		if m[2] == "console" || m[2] == "sh" {
			b.steps = parseSteps(body, b.line+1, m[2] == "sh")
			blocks = append(blocks, b)
		}
	}
	return blocks, nil
}

func parseNeeds(said string) (n needs, err error) {
	n.on = 1
	first, rest, _ := strings.Cut(said, "\n")
	for line := range strings.SplitSeq(rest, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			n.setup = append(n.setup, line)
		}
	}
	first = strings.TrimSpace(first)
	if reason, ok := strings.CutPrefix(first, "no,"); ok {
		n.skip = strings.TrimSpace(reason)
		if n.skip == "" {
			return n, fmt.Errorf("a block that is not run needs a reason")
		}
		return n, nil
	}
	for word := range strings.FieldsSeq(first) {
		key, value, _ := strings.Cut(word, "=")
		number, err := strconv.Atoi(value)
		switch {
		case word == "empty":
			n.fresh = true
		case err != nil:
			return n, fmt.Errorf("%q is not known here", word)
		case key == "cluster":
			n.fresh, n.cluster = true, number
		case key == "on":
			n.on = number
		case key == "exit":
			n.exit = number
		default:
			return n, fmt.Errorf("%q is not known here", word)
		}
	}
	return n, nil
}

// parseSteps splits a block. In a script every line is a command; in a console only those behind a prompt are.
func parseSteps(body []string, line int, script bool) (steps []step) {
	for i := 0; i < len(body); i++ {
		text, s := body[i], step{line: line + i}
		m := prompt.FindStringSubmatch(text)
		switch {
		case script && (strings.TrimSpace(text) == "" || strings.HasPrefix(text, "#")):
			continue
		case script:
			s.command = text
		case m != nil:
			if s.command = m[2]; m[1] != "" {
				s.machine = int(m[1][0]-'A') + 1
			}
		default:
			if text = strings.TrimSpace(text); text != "" && len(steps) > 0 {
				last := &steps[len(steps)-1]
				last.prints = append(last.prints, text)
			}
			continue
		}
		for goesOn(s.command) && i+1 < len(body) {
			i++
			s.command += "\n" + body[i]
		}
		steps = append(steps, s)
	}
	return steps
}

var hereDocument = regexp.MustCompile(`<<'(\w+)'`)

// goesOn reports whether the next line belongs to this command, too.
func goesOn(command string) bool {
	if m := hereDocument.FindStringSubmatch(command); m != nil {
		return !strings.HasSuffix(command, "\n"+m[1])
	}
	return strings.HasSuffix(command, `\`) || strings.HasSuffix(command, "|") || strings.HasSuffix(command, "&&") ||
		strings.Count(command, "'")%2 == 1
}
