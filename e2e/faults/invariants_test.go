package faults

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // reads the mirrors

	"muster/client"
)

// watcher reads the stream of events, from wherever it is served, as a client of ours does.
type watcher struct {
	cancel context.CancelFunc
	ended  chan struct{}
	mu     sync.Mutex
	events []client.Event
	last   error // why it was last interrupted
	gone   bool  // what comes next is no longer kept
}

// watch reads all events after a revision.
func (c *campaign) watch(after uint64) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{cancel: cancel, ended: make(chan struct{})}
	last := fmt.Sprint(after)
	go func() {
		defer close(w.ended)
		for ctx.Err() == nil {
			err := c.follow(ctx, last, func(e client.Event) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.events = append(w.events, e)
				last = e.ID()
			})
			w.mu.Lock()
			w.last = err
			e := (*client.Error)(nil)
			w.gone = errors.As(err, &e) && e.Status == http.StatusGone
			w.mu.Unlock()
			if w.gone {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return w
}

// follow watches with the authority and the addresses of now.
func (c *campaign) follow(ctx context.Context, after string, fn func(client.Event)) error {
	cfg := client.Config{Token: c.token}
	for _, m := range c.members() {
		cfg.Addrs = append(cfg.Addrs, m.via)
		if pem, err := os.ReadFile(filepath.Join(m.dir, "ca.crt")); err == nil && m.answers() {
			cfg.CACert = pem
		}
	}
	k, err := client.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // by then the authority may be another
	defer cancel()
	return k.Watch(ctx, client.WatchOptions{After: after}, func(e client.Event) error { fn(e); return nil })
}

// audit reads the audit after a revision up to its end.
func (c *campaign) audit(m *member, after uint64) (all []client.Event, err error) {
	next := fmt.Sprint(after)
	for next != "" {
		a := c.try(m, "GET", "/api/v1/audit?limit=1000&after="+next, "", 30*time.Second)
		page, err := result[client.AuditPage](a)
		if err != nil {
			return nil, err
		}
		all, next = append(all, page.Entries...), page.Next
	}
	return all, nil
}

// checkEvents compares what was streamed with the audit.
func (c *campaign) checkEvents(w *watcher, m *member, after uint64) (audit []client.Event) {
	err := c.host.Within(patience, func() (err error) {
		if audit, err = c.audit(m, after); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.gone {
			return nil
		}
		return sameEvents(w.events, audit)
	})
	w.cancel()
	<-w.ended
	switch {
	case w.gone:
		c.note("the stream of events could not be followed to the end: %v", w.last)
	case err != nil:
		c.violate("the events are not the audit: %v (the stream was last interrupted by %v)", err, w.last)
	}
	return audit
}

func sameEvents(events, audit []client.Event) error {
	for i, e := range audit {
		if i >= len(events) {
			return fmt.Errorf("%d events, %d entries; %s %s is missing", len(events), len(audit), e.ID(), e.Action)
		}
		if x := events[i]; x.ID() != e.ID() || x.Action != e.Action || x.Object != e.Object || x.Outcome != e.Outcome ||
			x.Detail != e.Detail {
			return fmt.Errorf("at %d the stream has %+v, the audit %+v", i, x, e)
		}
	}
	if len(events) > len(audit) {
		return fmt.Errorf("%d events, %d entries", len(events), len(audit))
	}
	return nil
}

// checkFiles waits until no member holds more of what it has replaced than a reader may have open for a moment: such
// files take room that nobody sees.
func (c *campaign) checkFiles() {
	const atMost = 2
	for _, m := range c.members() {
		p := m.current()
		err := c.host.Within(10*time.Second, func() error {
			old := 0
			files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid()))
			for _, f := range files {
				if target, err := os.Readlink(f); err == nil && strings.HasPrefix(target, m.dir) &&
					strings.HasSuffix(target, "(deleted)") {
					old++
				}
			}
			if old > atMost {
				return fmt.Errorf("%d", old)
			}
			return nil
		})
		if err != nil {
			c.violate("%s has files open that are replaced: %v", m.name, err)
		}
	}
}

// checkMirrors waits until all mirrors are of one revision and compares all that is in them.
func (c *campaign) checkMirrors() {
	err := c.host.Within(patience, func() error {
		var first map[string]string
		var who string
		for _, m := range c.members() {
			dump, err := tables(filepath.Join(m.dir, "muster.db"), c.root)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			if first == nil {
				first, who = dump, m.name
				continue
			}
			if dump["revision"] != first["revision"] {
				time.Sleep(time.Second)
				return fmt.Errorf("%s has revision %s, %s has %s", who, first["revision"], m.name, dump["revision"])
			}
			for table, sum := range dump {
				if first[table] != sum {
					return fmt.Errorf("%s and %s differ at revision %s in %s", who, m.name, dump["revision"], table)
				}
			}
		}
		return nil
	})
	if err != nil {
		c.violate("the mirrors are not the same: %v", err)
	}
}

// tables reads a copy of a mirror: a sum for each table, and the revision.
func tables(file, scratch string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	copied := filepath.Join(scratch, "mirror.db")
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", "file:"+copied+"?mode=ro")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	sums := map[string]string{}
	var revision string
	if err := db.QueryRow("SELECT revision FROM cluster").Scan(&revision); err != nil {
		return nil, err
	}
	sums["revision"] = revision
	names, err := strings1(db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		rows, err := strings1(db, "SELECT * FROM \""+name+"\"")
		if err != nil {
			return nil, err
		}
		slices.Sort(rows)
		sums[name] = fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(rows, "\n"))))
	}
	return sums, nil
}

// strings1 reads rows, each as one text.
func strings1(db *sql.DB, query string) (all []string, err error) {
	rows, err := db.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			return nil, err
		}
		if len(columns) == 1 {
			all = append(all, fmt.Sprint(*values[0].(*any)))
			continue
		}
		text, err := json.Marshal(values)
		if err != nil {
			return nil, err
		}
		all = append(all, string(text))
	}
	return all, rows.Err()
}
