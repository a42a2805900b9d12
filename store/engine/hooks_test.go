package engine

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/store/engine/enginetest"
)

// moments notes which hooks were called, in order.
type moments struct {
	mu   sync.Mutex
	list []string
}

func (m *moments) add(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, what)
}

func (m *moments) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.list
	m.list = nil
	return list
}

var errLong = errors.New("too long")

// The owner of the tables is asked at each moment, in the order that it can rely on.
func TestHooks(t *testing.T) {
	c := &testCluster{Cluster: enginetest.NewCluster[*Engine](t, 1)}
	m := &moments{}
	h := testHooks(true)
	found, begin := h.Found, h.Begin
	h.Found = func(tx *Tx) error { m.add("found"); return found(tx) }
	h.Begin = func(tx *Tx, b Beginning) error {
		if b.Epoch != 1 || b.Schema != testSchema.Latest || b.Migrated != "" {
			t.Errorf("%+v", b)
		}
		m.add("begin")
		return begin(tx, b)
	}
	h.Prepare = func(*View) error { m.add("prepare"); return nil }
	h.Lead = func(v *View) {
		if there, err := noted(v, "epoch 1"); err != nil || !there {
			t.Errorf("a leadership is told of before its first commit: %v", err)
		}
		m.add("lead")
	}
	h.Committed = func() { m.add("committed") }
	h.Yield = func() { m.add("yield") }
	h.Check = func(_ string, args []any) error {
		if slices.Contains(args, any("long")) {
			return errLong
		}
		return nil
	}
	c.start(1, h)
	e := c.leader()
	want := []string{"prepare", "found", "committed", "begin", "committed", "lead"}
	if got := m.take(); !slices.Equal(got, want) {
		t.Errorf("a leadership begins with %q, want %q", got, want)
	}
	told := make(chan []string, 1)
	if err := e.Write(bg, "r", func(tx *Tx) error {
		tx.OnCommit(func() { told <- m.take() })
		return note("r")(tx)
	}); err != nil {
		t.Fatal(err)
	}
	if got := <-told; len(got) != 0 {
		t.Errorf("%q before the transaction itself", got)
	}
	if err := e.Write(bg, "l", note("long")); !errors.Is(err, errLong) {
		t.Errorf("what Check refuses: %v", err)
	}
	c.eventually("the batch is told of", func() error {
		if got := m.take(); !slices.Contains(got, "committed") {
			return errors.New("not yet")
		}
		return nil
	})
	c.stop(1)
	if got := m.take(); !slices.Contains(got, "yield") {
		t.Errorf("the end of a leadership: %q", got)
	}
}

// What the transactions of a revision write is numbered without gaps; a refused one uses no number up.
func TestNext(t *testing.T) {
	c := newTestCluster(t, 1)
	e := c.leader()
	entered, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(4)
	go func() {
		defer wg.Done()
		_ = e.Write(bg, "hold", func(*Tx) error { close(entered); <-free; return nil })
	}()
	<-entered
	refused := errors.New("refused")
	for i, end := range []error{nil, refused, nil} {
		go func() {
			defer wg.Done()
			if err := e.Write(bg, "",
				func(tx *Tx) error { return errors.Join(note("n")(tx), end) }); (err == nil) != (end == nil) {
				t.Errorf("request %d: %v", i, err)
			}
		}()
	}
	c.eventually("all wait", func() error {
		if e.Waiting() < 3 {
			return errors.New("fewer")
		}
		return nil
	})
	close(free)
	wg.Wait()
	if err := e.Read(bg, AsLeader, func(v *View) error {
		var least, most, count int
		_, err := v.Get("SELECT min(seq), max(seq), count(*) FROM notes WHERE request = 'n'", nil, &least, &most, &count)
		if least != 1 || most != 2 || count != 2 {
			t.Errorf("%d to %d, %d of them", least, most, count)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// The same question is read once as long as nothing has changed; each consistency answers from its own state.
func TestRecall(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1)
	e := c.leader()
	reads := 0
	ask := func(level Consistency) int {
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		n, err := Recall(ctx, e, level, "notes", []string{"notes"}, func(v *View) (n int, err error) {
			reads++
			_, err = v.Get("SELECT count(*) FROM notes", nil, &n)
			return n, err
		})
		if err != nil && (level != Stale || !errors.Is(err, ErrNoLeader)) { // there is no mirror at first
			t.Error(err)
		}
		return n
	}
	before := ask(Linearisable)
	if ask(AsLeader) != before || ask(Linearisable) != before || reads != 1 {
		t.Errorf("%d reads", reads)
	}
	if _, err := write(bg, e); err != nil {
		t.Fatal(err)
	}
	if got := ask(AsLeader); got != before+1 || reads != 2 {
		t.Errorf("%d notes after %d, %d reads", got, before, reads)
	}
	c.eventually("the mirror has it", func() error {
		if ask(Stale) != before+1 {
			return errors.New("not yet")
		}
		return nil
	})
}

// The engine imports nothing of muster's but what compares times.
func TestKnowsNoNoun(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			if strings.HasPrefix(path, "muster/") && path != "muster/internal/timing" {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
	}
}
