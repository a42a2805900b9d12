package console

import (
	"bytes"
	"strings"
	"testing"
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
