package console

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Confirm asks before an irreversible step, and blocks for the answer. Without a terminal it returns an error that asks
// for --yes.
func Confirm(stdin io.Reader, stderr io.Writer, question string) error {
	if !Terminal(stdin) {
		return fmt.Errorf("%s\nThere is no terminal to ask: give --yes", question)
	}
	fmt.Fprintf(stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(stdin).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// Terminal reports whether a stream is a terminal.
func Terminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Transfer returns a function that shows the progress of a transfer, in bytes: one rewritten line on a terminal,
// occasional lines elsewhere.
func Transfer(stderr io.Writer, verb string) func(done, total int64) {
	var last time.Time
	live := Terminal(stderr)
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
		text := verb + " " + Bytes(done)
		if total > 0 {
			text += fmt.Sprintf(" of %s (%d %%)", Bytes(total), done*100/total)
		}
		switch {
		case live && end:
			fmt.Fprintf(stderr, "\r%s\n", text)
		case live:
			fmt.Fprintf(stderr, "\r%s", text)
		default:
			fmt.Fprintln(stderr, text)
		}
	}
}

// Bytes formats a number of bytes for people.
func Bytes(n int64) string {
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
