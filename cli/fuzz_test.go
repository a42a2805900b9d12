package cli

import (
	"strings"
	"testing"
)

// FuzzConfig feeds files of flags: what is accepted is one mapping of names to values that are not empty, and a refusal
// is one line.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{"data: d\napi: 127.0.0.1:1\n", "peer: [2=a:1, 3=b:1]\n", "a: &x [*x]\n", "a: {b: c}\n",
		"- a\n", "a: b\n---\nc: d\n",
		"? [a]\n: b\n", "%YAML 1.1\n", "a: !!binary aGk=\n", "a: \"\\x00\"\n", "<<: {a: b}\n"} {
		f.Add([]byte(text), "peer")
	}
	f.Fuzz(func(t *testing.T, data []byte, flag string) {
		root, err := mapping(data)
		if err != nil && strings.TrimSpace(err.Error()) == "" {
			t.Fatal("a refusal says nothing")
		}
		for i := 0; root != nil && i+1 < len(root.Content); i += 2 {
			list, err := valuesOf(flag, root.Content[i+1])
			if err != nil {
				continue
			}
			for _, one := range list {
				if blank(one) {
					t.Fatalf("%q is accepted", one)
				}
			}
		}
	})
}
