package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What a filter_path costs grows with its length and with the answer, not faster; it is bounded and says so.
func TestFilterPathBounds(t *testing.T) {
	deep := `1`
	for range 200 {
		deep = fmt.Sprintf(`{"a":%s,"b":1}`, deep)
	}
	dec := json.NewDecoder(strings.NewReader(deep))
	tree, err := readNode(dec)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{strings.Repeat("**.a.", 63) + "c", strings.Repeat("*a*.**.", 60) + "c", "-" +
		strings.Repeat("**.a.", 60) + "c",
		strings.Repeat("**.c,", 63)} {
		f, err := parseFilterPath(list)
		if err != nil {
			t.Fatalf("%.20s…: %v", list, err)
		}
		done := make(chan struct{})
		go func() { defer close(done); filterPaths(context.Background(), tree, f) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%.20s… takes far too long", list)
		}
	}
	for _, list := range []string{strings.Repeat("a.**.", 2000), strings.Repeat("a,", maxPaths+1),
		strings.Repeat("a.b.", maxSegments), strings.Repeat("x", maxPathsBytes+1)} {
		if _, err := parseFilterPath(list); err == nil {
			t.Errorf("%.20s… is taken", list)
		}
	}
	if f, err := parseFilterPath(strings.TrimSuffix(strings.Repeat("**.", 1000), ".")); err != nil || len(f.keep) != 1 ||
		len(f.keep[0]) != 1 {
		t.Errorf("a row of ** is one: %v, %v", f, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f, _ := parseFilterPath("**.b")
	big := &node{kind: '{'}
	for i := range 1000 {
		big.keys, big.items = append(big.keys, fmt.Sprint(i)), append(big.items, tree)
	}
	if got := filterPaths(ctx, big, f); len(got.items) >= 1000 {
		t.Error("nobody waits for it, and it goes on")
	}
}

// An answer that is indented does not grow with the square of its levels.
func TestPrettyIsBounded(t *testing.T) {
	text := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	tree, err := readNode(json.NewDecoder(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	tree.print(&b, true, "\n")
	if b.Len() > 100*len(text) || !json.Valid(b.Bytes()) {
		t.Errorf("%d bytes become %d", len(text), b.Len())
	}
}
