package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/canonical/go-dqlite/v3/client"
	"github.com/canonical/go-dqlite/v3/driver"
)

var errDiskHolds = errors.New("the disk still holds the writer of the last leadership")

// descendWait bounds how long the end of a leadership waits for its writer, which may wait for the disk. It is more
// than a commit and its resolution take.
const descendWait = commitTimeout + resolveTimeout + time.Second

// endingWait is how long a new leadership waits for the end of the last one. After that it is handed to another member.
const endingWait = 2 * time.Second

// stepDownWait is descendWait for a leader whose disk is known to fail.
const stepDownWait = 300 * time.Millisecond

// leadership is the state of a member while it leads: the connection that writes, the working copy, the queue.
type leadership struct {
	engine   *Engine
	epoch    uint64
	db       *guarded
	work     *working
	queue    chan *request
	reads    confirmer
	expected int           // how many requests the next batch waits for
	took     time.Duration // duration of the last commit
	memory   memory
	recent   recent          // texts of the newest batches
	prepared bool            // the working copy was made before this member was elected
	schema   int64           // version while this member leads
	migrated string          // the schema step at its beginning, for the audit
	ctx      context.Context // ends with the leadership
	end      context.CancelCauseFunc
	done     chan struct{} // closed when the writer has stopped
}

// guarded is one SQL connection to the local dqlite node. It is cut when a call outlives its deadline: without a quorum
// dqlite keeps a statement waiting despite its context, and only closing the socket ends it.
type guarded struct {
	db   *sql.DB
	conn *sql.Conn
	mu   sync.Mutex
	raw  net.Conn
}

func (n *node) open(ctx context.Context) (*guarded, error) {
	g := &guarded{}
	stores := client.NewInmemNodeStore()
	if err := stores.Set(ctx, []client.NodeInfo{{ID: n.id, Address: raftName(n.id)}}); err != nil {
		return nil, err
	}
	drv, err := driver.New(stores, driver.WithRetryLimit(1), driver.WithAttemptTimeout(controlTimeout),
		driver.WithDialFunc(func(ctx context.Context, address string) (net.Conn, error) {
			if address != raftName(n.id) {
				return nil, ErrNotLeader // the driver may have connected to another node
			}
			c, err := n.dialLocal(ctx, address)
			if err == nil {
				g.mu.Lock()
				g.raw = c
				g.mu.Unlock()
			}
			return c, err
		}))
	if err != nil {
		return nil, err
	}
	connector, err := drv.OpenConnector(databaseName)
	if err != nil {
		return nil, err
	}
	g.db = sql.OpenDB(connector)
	g.db.SetMaxOpenConns(1)
	if g.conn, err = g.db.Conn(ctx); err != nil {
		g.db.Close()
		return nil, err
	}
	return g, nil
}

// within runs f, and cuts the connection if f takes longer than d.
func (g *guarded) within(d time.Duration, f func(*sql.Conn) error) error {
	cut := time.AfterFunc(d, g.cut)
	defer cut.Stop()
	return f(g.conn)
}

func (g *guarded) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.raw != nil {
		g.raw.Close()
	}
}

func (g *guarded) close() {
	g.cut()
	g.conn.Close()
	g.db.Close()
}

// ascend takes up the leadership to which Raft has elected this member: schema, working copy, first commit.
func (e *Engine) ascend(ctx context.Context) error {
	begin := time.Now()
	if ending := e.ended(); ending != nil {
		select {
		case <-ending:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(endingWait):
			return errDiskHolds
		}
	}
	openCtx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	db, err := e.node.open(openCtx)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	l := &leadership{engine: e, db: db, queue: make(chan *request, 4096), done: make(chan struct{})}
	l.ctx, l.end = context.WithCancelCause(context.WithoutCancel(ctx))
	l.reads.ask = l.confirmMajority
	if err := l.prepare(ctx); err != nil {
		e.hooks.Yield()
		l.end(err)
		db.close()
		if l.work != nil {
			l.work.close()
		}
		return err
	}
	if _, err := e.RefreshServers(ctx); err != nil { // linearisable reads count the voters of this configuration
		e.hooks.Yield()
		l.end(err)
		db.close()
		l.work.close()
		return err
	}
	e.hooks.Lead(&View{s: l.work.writer, Now: e.cfg.Now()})
	e.observed.set(time.Now()) // proved by the first commit
	e.mu.Lock()
	e.lead = l
	e.lost.Store(nil) // the first commit of this leadership decides all earlier entries
	close(e.turned)
	e.turned = make(chan struct{})
	e.mu.Unlock()
	go l.write()
	e.log.Info("leading", "epoch", l.epoch, "revision", e.changes.revision(), "prepared", l.prepared, "after",
		time.Since(begin).Round(time.Millisecond))
	return nil
}

// prepare brings the schema up to date, makes the working copy and commits the beginning of this leadership. That
// commit is a barrier: all entries of earlier leaders are applied before it.
func (l *leadership) prepare(ctx context.Context) error {
	e := l.engine
	if err := l.db.within(migrateTimeout, func(c *sql.Conn) error { return l.migrate(ctx, c) }); err != nil {
		return err
	}
	if e.hooks.Import != "" {
		if err := l.importState(ctx, e.hooks.Import); err != nil {
			return fmt.Errorf("found the cluster from a backup: %w", err)
		}
	}
	at, founded, err := l.position(ctx)
	if err != nil {
		return err
	}
	if err := l.copy(ctx, at); err != nil {
		return err
	}
	e.changes.reset(at.Revision)
	if err := e.hooks.Prepare(&View{s: l.work.writer, Now: e.cfg.Now()}); err != nil {
		return err
	}
	if !founded {
		if e.hooks.Found == nil {
			return errors.New("the database is empty, and this member was not started to found a cluster")
		}
		if err := l.commitAlone(e.hooks.Found); err != nil {
			return fmt.Errorf("found the cluster: %w", err)
		}
	}
	return l.commitAlone(l.begin)
}

// position reads through dqlite which batch was the last one; founded is false before the first one.
func (l *leadership) position(ctx context.Context) (at position, founded bool, err error) {
	founded = true
	err = l.db.within(commitTimeout, func(c *sql.Conn) error {
		err := c.QueryRowContext(ctx, selectPosition).Scan(&at.Revision, &at.Batch)
		if errors.Is(err, sql.ErrNoRows) {
			founded, err = false, nil
		}
		return err
	})
	if err != nil {
		return at, founded, fmt.Errorf("read the revision: %w", err)
	}
	return at, founded, nil
}

// copy takes the working copy of the heir, or makes one, of the state at a position.
func (l *leadership) copy(ctx context.Context, at position) error {
	e := l.engine
	if l.work = e.heir.take(at, l.schema); l.work != nil {
		l.prepared = true
		return nil
	}
	for try := 0; ; try++ {
		w, err := openWorking(e.cfg.Dir, e.cfg.Schema.Latest, func(path string) error {
			ctx, cancel := context.WithTimeout(ctx, commitTimeout)
			defer cancel()
			_, err := e.copyReplica(ctx, path)
			return err
		})
		if err != nil {
			return err
		}
		have, err := (&View{s: w.writer}).position()
		if err == nil && have == at {
			l.work = w
			return nil
		}
		w.close()
		if try == 100 {
			return fmt.Errorf("the local copy stays at revision %d, the cluster is at %d: %w", have.Revision, at.Revision,
				err)
		}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
}

// commitAlone commits a transaction of the leadership itself. A nil error means that it is committed.
func (l *leadership) commitAlone(fn func(*Tx) error) error {
	r := &request{fn: fn, done: make(chan error, 1)}
	if err := l.commit([]*request{r}); err != nil {
		return err
	}
	return <-r.done
}

func (l *leadership) begin(tx *Tx) error {
	if _, err := tx.Get("SELECT epoch + 1 FROM cluster", nil, &l.epoch); err != nil {
		return err
	}
	if _, err := tx.Exec("UPDATE cluster SET epoch = ?, leader_node_id = ?", l.epoch, l.engine.cfg.NodeID); err != nil {
		return err
	}
	return l.engine.hooks.Begin(tx, Beginning{Epoch: l.epoch, Schema: l.schema, Migrated: l.migrated})
}

// descend ends this member's leadership, if it has it. Waiting requests are answered with reason; no committed write is
// lost.
func (e *Engine) descend(reason error) { e.descendWithin(reason, descendWait) }

func (e *Engine) descendWithin(reason error, wait time.Duration) {
	e.mu.Lock()
	l := e.lead
	e.lead = nil
	if l != nil {
		close(e.turned)
		e.turned = make(chan struct{})
	}
	e.mu.Unlock()
	if l == nil {
		return
	}
	e.losesNow()
	l.end(reason)
	ending := make(chan struct{})
	e.mu.Lock()
	e.ending = ending
	e.mu.Unlock()
	go func() {
		defer close(ending)
		<-l.done
		e.hooks.Yield()
		l.db.close()
		l.work.close()
	}()
	select {
	case <-l.done: // closing the files may take longer; only the next leadership of this member waits for it
	case <-time.After(wait):
		e.log.Warn("the writer of this leadership still waits for the disk; another member leads meanwhile", "epoch", l.epoch)
	}
	e.log.Info("no longer leading", "epoch", l.epoch)
}

// ended returns a channel that is closed when the last leadership has closed its files; nil before the first
// leadership.
func (e *Engine) ended() chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ending
}

// Epoch returns the number of this member's leadership; 0 while it does not lead.
func (e *Engine) Epoch() uint64 {
	if l := e.current(); l != nil {
		return l.epoch
	}
	return 0
}

// Waiting returns how many writes wait for the writer. It does not block.
func (e *Engine) Waiting() int {
	if l := e.current(); l != nil {
		return len(l.queue)
	}
	return 0
}

func (e *Engine) current() *leadership {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lead
}
