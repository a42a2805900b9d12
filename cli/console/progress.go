package console

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Line is a line that is rewritten on a terminal and written once elsewhere.
type Line struct {
	w     io.Writer
	tty   bool
	shown bool
}

// NewLine returns a line that has not been shown yet.
func NewLine(w io.Writer) *Line { return &Line{w: w, tty: Terminal(w)} }

// Show writes the activity, the time that it has taken, and its limit.
func (p *Line) Show(text string, passed, limit time.Duration) {
	switch {
	case p.tty:
		fmt.Fprintf(p.w, "\r%s: %s of at most %s ", text, passed.Truncate(time.Second), limit)
	case !p.shown:
		fmt.Fprintf(p.w, "%s, at most %s …\n", text, limit)
	}
	p.shown = true
}

// Note shows a fixed text, on a terminal only.
func (p *Line) Note(text string) {
	if p.tty && !p.shown {
		fmt.Fprint(p.w, text)
		p.shown = true
	}
}

// End finishes the line.
func (p *Line) End() {
	if p.tty && p.shown {
		fmt.Fprintln(p.w)
	}
}

// While calls f and blocks until it returns. On a terminal it shows the activity and its duration after the first
// second; elsewhere it writes nothing.
func While(w io.Writer, what string, f func() error) error {
	if !Terminal(w) {
		return f()
	}
	return while(w, what, time.Second, f)
}

func while(w io.Writer, what string, every time.Duration, f func() error) error {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for begin, shown := time.Now(), false; ; shown = true {
			select {
			case <-tick.C:
				fmt.Fprintf(w, "\r%s: %s ", what, time.Since(begin).Truncate(time.Second))
			case <-over:
				if shown {
					fmt.Fprintln(w)
				}
				return
			}
		}
	}()
	err := f()
	close(over)
	<-ended
	return err
}

// Bar is progress as a bar that is rewritten on a terminal, and as plain lines, one a second at most, elsewhere.
type Bar struct {
	w     io.Writer
	verb  string
	tty   bool
	shown bool
	last  int // percent
	at    time.Time
}

// NewBar returns a bar; verb begins the plain lines.
func NewBar(w io.Writer, verb string) *Bar { return &Bar{w: w, verb: verb, tty: Terminal(w)} }

const barWidth = 40

// Show draws the bar; total is a number of values.
func (b *Bar) Show(percent, done, total int) {
	first := !b.shown
	if !first && percent == b.last {
		return
	}
	text := fmt.Sprintf("%3d %%  %d of %d values", percent, min(max(done, 0), total), total)
	switch {
	case b.tty:
		filled := percent * barWidth / 100
		fmt.Fprintf(b.w, "\r[%s%s] %s ", strings.Repeat("#", filled), strings.Repeat("-", barWidth-filled),
			text)
	case first || percent == 100 || time.Since(b.at) >= time.Second:
		fmt.Fprintf(b.w, "%s: %s\n", b.verb, strings.TrimSpace(text))
		b.at = time.Now()
	default:
		return
	}
	b.shown, b.last = true, percent
}

// End finishes the line of the bar.
func (b *Bar) End() {
	if b.tty && b.shown {
		fmt.Fprintln(b.w)
	}
	b.shown = false
}
