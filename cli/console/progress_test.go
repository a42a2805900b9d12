package console

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestBar(t *testing.T) {
	var out bytes.Buffer
	b := Bar{w: &out, tty: true}
	for _, n := range []int{0, 0, 5, 10} {
		b.Show(n*10, n, 10)
	}
	b.End()
	b.End()
	want := "\r[" + strings.Repeat("-", 40) + "]   0 %  0 of 10 values " +
		"\r[" + strings.Repeat("#", 20) + strings.Repeat("-", 20) + "]  50 %  5 of 10 values " +
		"\r[" + strings.Repeat("#", 40) + "] 100 %  10 of 10 values \n"
	if out.String() != want {
		t.Errorf("%q\nwant %q", out.String(), want)
	}
}

// What takes long is said, and for how long; what does not is not.
func TestWhile(t *testing.T) {
	var quick, slow strings.Builder
	failed := errors.New("failed")
	if err := while(&quick, "working", time.Hour, func() error { return failed }); err != failed || quick.String() != "" {
		t.Errorf("%v, %q", err, quick.String())
	}
	seen := make(chan struct{}, 1)
	err := while(writer(func(p []byte) {
		slow.Write(p)
		select {
		case seen <- struct{}{}:
		default:
		}
	}), "working", time.Millisecond,
		func() error { <-seen; return nil })
	if err != nil || !strings.HasPrefix(slow.String(), "\rworking: 0s ") || !strings.HasSuffix(slow.String(), "\n") {
		t.Errorf("%v, %q", err, slow.String())
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}
