// Command man writes muster's manual pages, one for each command, from the commands themselves. It is a program of its
// own: what turns Markdown into roff is not linked into muster.
//
//	go run ./scripts/man DIRECTORY
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"

	"muster/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// write makes the directory and a page for each command in it, muster-member-drain.1 for "muster member drain".
func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := cli.Command()
	root.DisableAutoGenTag = true
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "muster " + cli.Version, Manual: "muster"}, dir)
}
