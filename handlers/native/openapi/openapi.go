// Package openapi has the OpenAPI description of all endpoints.
package openapi

import (
	"embed"
	"strings"
	"sync"
)

// The description is written by hand, a file per family, to be read beside the handlers. Every file is valid YAML with
// `paths` and `components`; head.yaml has everything else.
//
//go:embed *.yaml
var files embed.FS

// Document returns the description of all endpoints, OpenAPI 3.1 in YAML.
func Document() []byte { return document() }

// document concatenates the sections of the same name.
var document = sync.OnceValue(func() []byte {
	names, err := files.ReadDir(".")
	if err != nil {
		panic(err)
	}
	var head, paths strings.Builder
	components := map[string]*strings.Builder{}
	var order []string
	for _, name := range names {
		text, err := files.ReadFile(name.Name())
		if err != nil {
			panic(err)
		}
		into, inComponents := &head, false
		for line := range strings.Lines(string(text)) {
			section := strings.TrimSuffix(strings.TrimSpace(line), ":")
			switch {
			case strings.HasPrefix(line, "#"):
			case line == "paths:\n":
				into, inComponents = &paths, false
			case line == "components:\n":
				inComponents = true
			case inComponents && strings.HasPrefix(line, "  ") && line[2] != ' ':
				if components[section] == nil {
					components[section] = &strings.Builder{}
					order = append(order, section)
				}
				into = components[section]
			default:
				into.WriteString(line)
			}
		}
	}
	head.WriteString("paths:\n" + paths.String() + "components:\n")
	for _, section := range order {
		head.WriteString("  " + section + ":\n" + components[section].String())
	}
	return []byte(head.String())
})
