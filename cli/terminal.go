package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// yesFlag adds --yes to a command that asks before it does what cannot be undone.
func yesFlag(cmd *cobra.Command, yes *bool) *cobra.Command {
	cmd.Flags().BoolVar(yes, "yes", false, "do it without asking")
	return cmd
}

// confirm asks before something that cannot be undone. Without a terminal nobody can answer: then --yes is needed.
func (e *environment) confirm(yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	question := fmt.Sprintf(format, args...)
	if !terminal(e.stdin) {
		return fmt.Errorf("%s\nThere is no terminal to ask: say --yes", question)
	}
	fmt.Fprintf(e.stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(e.stdin).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// progress shows how far a transfer is: a line that is written over on a terminal, otherwise a line now and then.
func (e *environment) progress(verb string) func(done, total int64) {
	var last time.Time
	live := terminal(e.stderr)
	every := 5 * time.Second
	if live {
		every = 100 * time.Millisecond
	}
	last = time.Now()
	return func(done, total int64) {
		end := done == total
		if time.Since(last) < every && !(end && live) {
			return
		}
		last = time.Now()
		text := verb + " " + bytesText(done)
		if total > 0 {
			text += fmt.Sprintf(" of %s (%d %%)", bytesText(total), done*100/total)
		}
		switch {
		case live && end:
			fmt.Fprintf(e.stderr, "\r%s\n", text)
		case live:
			fmt.Fprintf(e.stderr, "\r%s", text)
		default:
			e.say("%s", text)
		}
	}
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprintf("%d GiB", n>>30)
	}
}
