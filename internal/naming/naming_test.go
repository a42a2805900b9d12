package naming

import (
	"errors"
	"strings"
	"testing"
)

// resolved lists names and what each is the name of.
var resolved = []Member{
	{
		NodeID:      1,
		ID:          "aaaaaaaa-0000-4000-8000-000000000001",
		Name:        "web-1",
		RaftAddress: "10.0.0.1:7000",
		APIAddress:  "10.0.0.1:5000",
		Host:        "10.0.0.1",
		Status:      "alive",
	},
	{
		NodeID:      2,
		ID:          "aaaaaaaa-0000-4000-8000-000000000002",
		Name:        "4",
		RaftAddress: "Box-2.example:7000",
		APIAddress:  "https://box-2.example:5000",
		Status:      "alive",
	},
	{
		NodeID:      3,
		ID:          "aaaaaaaa-0000-4000-8000-000000000003",
		Name:        "moved",
		RaftAddress: "10.0.0.4:7000",
		APIAddress:  "10.0.0.3:5000",
		Status:      "alive",
	},
	{
		NodeID:      4,
		ID:          "aaaaaaaa-0000-4000-8000-000000000004",
		Name:        "gone",
		RaftAddress: "10.0.0.4:7000",
		APIAddress:  "10.0.0.4:5000",
		Status:      "left",
	},
	{
		NodeID:      5,
		ID:          "aaaaaaaa-0000-4000-8000-000000000005",
		Name:        "web-1",
		RaftAddress: "[::1]:7000",
		APIAddress:  "[::1]:5000",
		Status:      "left",
	},
	{
		NodeID:      6,
		ID:          "aaaaaaaa-0000-4000-8000-000000000006",
		Name:        "box-2.example",
		RaftAddress: "10.0.0.6:7000",
		APIAddress:  "10.0.0.6:5000",
	},
}

func TestResolve(t *testing.T) {
	members := resolved
	for text, want := range map[string][]uint64{
		"1": {1}, "4": {4}, "7": nil, "0": nil, "-1": nil, "": nil,
		"aaaaaaaa-0000-4000-8000-000000000003": {3}, "AAAAAAAA-0000-4000-8000-000000000003": {3},
		"moved": {3}, "moved.global": {3}, "web-1": {1, 5}, "web": nil, "Moved": {3},
		"10.0.0.1:7000": {1}, "10.0.0.1:5000": {1}, "https://10.0.0.1:5000/": {1}, "10.0.0.1": {1}, "10.0.0.1:1": nil,
		"10.0.0.4:7000": {3, 4}, "10.0.0.4": {3, 4}, "10.0.0.3": {3}, "10.0.0.4:5000": {4},
		"box-2.example:7000": {2}, "BOX-2.example.:5000": {2}, "box-2.example": {2, 6},
		"MOVED": {3}, "moved.": {3}, "Web-1.": {1, 5}, "Moved.global": {3}, "move": nil,
		"[0::1]:7000": {5}, "::1": {5}, "[::1]": {5},
	} {
		m, err := Resolve(members, text)
		var several *Ambiguous
		switch {
		case len(want) == 0:
			if !errors.Is(err, ErrNone) {
				t.Errorf("Resolve(%q) = %d, %v", text, m.NodeID, err)
			}
		case len(want) == 1:
			if err != nil || m.NodeID != want[0] {
				t.Errorf("Resolve(%q) = %d, %v, want %d", text, m.NodeID, err, want[0])
			}
		case !errors.As(err, &several) || len(several.Candidates) != len(want) || several.Candidates[0].NodeID != want[0]:
			t.Errorf("Resolve(%q) = %d, %v", text, m.NodeID, err)
		case !strings.Contains(err.Error(), several.Candidates[1].Name) || !strings.Contains(err.Error(), "left") &&
			text == "10.0.0.4":
			t.Errorf("the error does not list the candidates: %v", err)
		}
	}
	if _, err := ResolveAddress(members, "moved"); !errors.Is(err, ErrNone) {
		t.Errorf("a name is taken for an address: %v", err)
	}
}
