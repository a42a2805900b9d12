package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	nodeLabel = regexp.MustCompile(`(\w+)\["([^"]+)"\]`)
	// rooms for tests, and tools
	notShown = regexp.MustCompile(`^(scripts/|handlers/internal/sole|internal/(await|described|enrolled|silent)$)|test$`)
)

// TestPicture: the picture of the rooms in docs/architecture.md has the arrows that the imports make, and no other.
func TestPicture(t *testing.T) {
	page, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, picture, _ := strings.Cut(string(page), "```mermaid\nflowchart TD\n")
	picture, _, found := strings.Cut(picture, "```")
	if !found {
		t.Fatal("docs/architecture.md has no picture")
	}
	boxes := map[string]string{} // of a package: its box
	for _, m := range nodeLabel.FindAllStringSubmatch(picture, -1) {
		for room := range strings.SplitSeq(m[2], "<br>") {
			boxes[room] = m[1]
		}
	}
	drawn := map[string]bool{}
	for line := range strings.Lines(nodeLabel.ReplaceAllString(picture, "$1")) {
		from, to, arrow := strings.Cut(strings.TrimSpace(line), " --> ")
		if !arrow {
			continue
		}
		for box := range strings.SplitSeq(to, " & ") {
			drawn[from+" → "+box] = true
		}
	}
	boxOf := func(room string) string {
		if box, ok := boxes[room]; ok {
			return box
		}
		return room
	}
	imports := map[string]bool{}
	for room, list := range importsOfOurs(t) {
		if slices.Contains(shared, room) || notShown.MatchString(room) {
			continue
		}
		if _, ok := boxes[room]; !ok && strings.Contains(room, "/") {
			t.Errorf("the picture in docs/architecture.md does not show %s", room)
		}
		for _, to := range list {
			if from, to := boxOf(room), boxOf(to); from != to && !slices.Contains(shared, to) && !notShown.MatchString(to) {
				imports[from+" → "+to] = true
			}
		}
	}
	for arrow := range imports {
		if !drawn[arrow] {
			t.Errorf("the picture in docs/architecture.md lacks %s", arrow)
		}
	}
	for arrow := range drawn {
		if !imports[arrow] {
			t.Errorf("the picture in docs/architecture.md has %s, and nothing imports that", arrow)
		}
	}
}
