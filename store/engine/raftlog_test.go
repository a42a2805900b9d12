package engine

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func encodeServers(list ...Server) []byte {
	out := binary.LittleEndian.AppendUint64([]byte{1}, uint64(len(list)))
	for _, v := range list {
		out = binary.LittleEndian.AppendUint64(out, v.NodeID)
		out = append(append(out, raftName(v.NodeID)...), 0)
		out = append(out, map[Role]byte{RoleStandBy: 0, RoleVoter: 1, RoleSpare: 2}[v.Role])
	}
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	return out
}

type rawEntry struct {
	kind byte
	data []byte
}

// encodeSegment writes batches as raft does; nobody checks the checksums here.
func encodeSegment(batches ...[]rawEntry) []byte {
	out := binary.LittleEndian.AppendUint64(nil, raftFormat)
	for _, batch := range batches {
		out = binary.LittleEndian.AppendUint64(out, 0)
		out = binary.LittleEndian.AppendUint64(out, uint64(len(batch)))
		for _, e := range batch {
			out = binary.LittleEndian.AppendUint64(out, 1)
			out = append(out, e.kind, 0, 0, 0)
			out = binary.LittleEndian.AppendUint32(out, uint32(len(e.data)))
		}
		for _, e := range batch {
			out = append(out, e.data...)
		}
	}
	return out
}

func encodeSnapshotMeta(conf []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, raftFormat)
	for _, v := range []uint64{0, 1, uint64(len(conf))} {
		out = binary.LittleEndian.AppendUint64(out, v)
	}
	return append(out, conf...)
}

// What a recovery must not be forced upon is found in Go: the C library would abort over it, or make a cluster that
// nobody is in.
func TestCheckRecoverable(t *testing.T) {
	one, two, three := Server{1, RoleVoter}, Server{2, RoleVoter}, Server{3, RoleStandBy}
	conf := encodeServers(one, two, three)
	command := rawEntry{1, make([]byte, 64)}
	change := rawEntry{raftChange, conf}
	foreign := slices.Clone(conf)
	copy(foreign[17:], "host-1")
	for name, x := range map[string]struct {
		files map[string][]byte
		node  uint64
		want  string // part of the error, "" for none
	}{
		"a segment": {map[string][]byte{"0000000000000001-0000000000000003": encodeSegment([]rawEntry{change},
			[]rawEntry{command, command})}, 1, ""},
		"a stand-by": {map[string][]byte{"0000000000000001-0000000000000001": encodeSegment([]rawEntry{change})}, 3, ""},
		"an open segment with zeros behind": {map[string][]byte{"open-1": append(encodeSegment([]rawEntry{command, change}),
			make([]byte, 4096)...)}, 2, ""},
		"an open segment, reserved only": {map[string][]byte{"open-1": encodeSegment([]rawEntry{change}),
			"open-2": make([]byte, 4096)}, 2, ""},
		"a torn batch": {map[string][]byte{"open-1": append(encodeSegment([]rawEntry{change}),
			encodeSegment([]rawEntry{{1, make([]byte, 80)}})[8:60]...)}, 2, ""},
		"the newest counts": {map[string][]byte{"open-2": encodeSegment([]rawEntry{{raftChange,
			encodeServers(one)}}), "open-10": encodeSegment([]rawEntry{change})}, 2, ""},
		"a snapshot": {map[string][]byte{"snapshot-1-9-100": {1}, "snapshot-1-9-100.meta": encodeSnapshotMeta(conf),
			"snapshot-1-10-100.meta": encodeSnapshotMeta(encodeServers(one))}, 2, ""}, // the newer one is unfinished

		"nothing": {nil, 1, "never took part in Raft"},
		"no configuration": {map[string][]byte{"0000000000000001-0000000000000001": encodeSegment([]rawEntry{command})}, 1,
			"never took part in Raft"},
		"an empty configuration": {map[string][]byte{"open-1": encodeSegment([]rawEntry{{raftChange, encodeServers()}})},
			1, "never took part in Raft"},
		"not in it": {map[string][]byte{"open-1": encodeSegment([]rawEntry{change})}, 4,
			"not in the Raft configuration"},
		"removed by its own log": {map[string][]byte{"open-1": encodeSegment([]rawEntry{change,
			{raftChange, encodeServers(one, two)}})}, 3, "not in the Raft configuration"},
		"of somebody else": {map[string][]byte{"open-1": encodeSegment([]rawEntry{{raftChange, foreign}})}, 1,
			"not that of a muster cluster"},
		"a configuration cut short": {map[string][]byte{"open-1": encodeSegment([]rawEntry{{raftChange, conf[:20]}})}, 1,
			"not that of a muster cluster"},
		"another format": {map[string][]byte{"open-1": append([]byte{9},
			encodeSegment([]rawEntry{change})[1:]...)}, 1, "unexpected format"},
		"a gap": {map[string][]byte{"0000000000000001-0000000000000001": encodeSegment([]rawEntry{change}),
			"0000000000000003-0000000000000003": encodeSegment([]rawEntry{command})}, 1, "missing between two segments"},
		"a snapshot cut short": {map[string][]byte{"snapshot-1-9-100": {1},
			"snapshot-1-9-100.meta": encodeSnapshotMeta(conf)[:40]}, 1, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, data := range x.files {
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := CheckRecoverable(dir, x.node)
			if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
				t.Errorf("%v, want %q", err, x.want)
			}
		})
	}
}

// The term is that of the newer file, and a file that is not complete is as good as none.
func TestTerm(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, words ...uint64) {
		var data []byte
		for _, w := range words {
			data = binary.LittleEndian.AppendUint64(data, w)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		name  string
		words []uint64
		want  uint64
	}{{"metadata0", []uint64{1, 9, 9, 1}, 0}, {"metadata1", []uint64{1, 3, 7, 1}, 7},
		{"metadata2", []uint64{1, 2, 6, 1}, 7}, {"metadata2", []uint64{1, 4, 8, 2}, 8},
		{"metadata2", []uint64{1, 5}, 7}, {"metadata2", []uint64{2, 5, 9, 1}, 7}} {
		write(x.name, x.words...)
		if got := raftTerm(dir); got != x.want {
			t.Errorf("after %s %v: %d, want %d", x.name, x.words, got, x.want)
		}
	}
}

// TestLostVotes: a file of raft's term and vote that was there before is missed, also when it is too short, which raft
// takes for one that was never written.
func TestLostVotes(t *testing.T) {
	t.Parallel()
	const short = 1 << 20 // in place of a version
	for _, x := range []struct {
		first, second uint64 // versions; 0: no file
		lost          string
	}{{0, 0, "neither metadata1 nor metadata2"}, {short, 0, "neither"}, {short, short, "neither"}, {1, 0, ""},
		{1, short, ""}, {1, 2, ""}, {3, 2, ""}, {3, 0, "metadata2"}, {3, short, "metadata2"}, {0, 2, "metadata1"},
		{short, 2, "metadata1"}} {
		dir := t.TempDir()
		for i, version := range []uint64{x.first, x.second} {
			data := make([]byte, 4*raftWord)
			binary.LittleEndian.PutUint64(data, raftFormat)
			binary.LittleEndian.PutUint64(data[raftWord:], version)
			switch version {
			case 0:
				continue
			case short:
				data = data[:i*2*raftWord]
			}
			if err := os.WriteFile(filepath.Join(dir, raftMetadata[i]), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := LostVotes(dir); (got == "") != (x.lost == "") || !strings.HasPrefix(got, x.lost) {
			t.Errorf("versions %d and %d: %q", x.first, x.second, got)
		}
	}
}
