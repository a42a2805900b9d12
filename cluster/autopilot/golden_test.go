package autopilot

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the answers into testdata/*.json")

// golden is one file of testdata: the whole call and the whole answer.
type golden struct {
	About  string    `json:"about"`
	Now    time.Time `json:"now"`
	Config Config    `json:"config"`
	Input  Input     `json:"input"`
	State  State     `json:"state"`
	Plan   Plan      `json:"plan"`
	// Then is the carried state for the next round.
	Then map[uint64]Health `json:"then"`
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			g := golden{Config: testConfig()}
			dec := json.NewDecoder(bytes.NewReader(want))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&g); err != nil {
				t.Fatal(err)
			}
			if err := g.Config.Validate(); err != nil {
				t.Fatal(err)
			}
			g.State, g.Plan = Decide(g.Input, g.Config, g.Now)
			g.Then = Carry(g.State)
			got, err := json.MarshalIndent(g, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			if *update {
				if err := os.WriteFile(f, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s (go test -update writes it):\n%s", f, got)
			}
		})
	}
}
