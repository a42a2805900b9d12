package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/canonical/go-dqlite/v3"
	"github.com/canonical/go-dqlite/v3/client"
	"github.com/canonical/go-dqlite/v3/driver"
	_ "github.com/mattn/go-sqlite3" // reads muster's schema, and holds the SQLite that libdqlite is linked with
)

// engineSystem is muster's engine alone: three processes of dqlite over plain TCP. One connection sends them the texts
// of muster's writer. It shows the lowest possible cost of a write.
type engineSystem struct{ bench *bench }

func (engineSystem) name() string { return "engine" }

type engineCluster struct {
	addrs    []string
	procs    []*process
	revision atomic.Int64
}

// dqliteCommand makes this program one node: bench dqlite ID ADDRESS DIR.
const dqliteCommand = "dqlite"

func dqliteNode(args []string) error {
	var id uint64
	if _, err := fmt.Sscan(args[0], &id); err != nil {
		return err
	}
	n, err := dqlite.New(id, args[1], args[2], dqlite.WithBindAddress(args[1]), dqlite.WithDialFunc(dialPlain),
		dqlite.WithNetworkLatency(defaultLatency), dqlite.WithAutoRecovery(false),
		dqlite.WithSnapshotParams(dqlite.SnapshotParams{
			Threshold: 256,
			Trailing:  256,
			Strategy:  dqlite.TrailingStrategyDynamic,
		}))
	if err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	return n.Close()
}

func dialPlain(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

func (s engineSystem) start(ctx context.Context, f *fleet) (cluster, error) {
	if s.bench.muster == nil {
		return nil, errors.New("the engine needs muster's schema, and muster was not found")
	}
	model, err := s.bench.shared(ctx, s.bench.muster)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(f.dir, "engine-")
	if err != nil {
		return nil, err
	}
	c := &engineCluster{}
	if c.addrs, err = freeAddrs(members); err != nil {
		return nil, err
	}
	for i, addr := range c.addrs {
		data := fmt.Sprintf("%s/n%d", dir, i+1)
		if err = os.Mkdir(data, 0o700); err != nil {
			break
		}
		var p *process
		if p, err = f.launch(dir, fmt.Sprintf("n%d", i+1), self, dqliteCommand, fmt.Sprint(i+1), addr, data); err != nil {
			break
		}
		c.procs = append(c.procs, p)
	}
	if err == nil {
		err = c.form(ctx, model.(*musterCluster).dir+"/n1/muster.db")
	}
	if err != nil {
		stop(c)
		return nil, err
	}
	return c, nil
}

// form makes all nodes voters and copies the contents of one of muster's mirrors to them.
func (c *engineCluster) form(ctx context.Context, mirror string) error {
	var admin *client.Client
	err := eventually(ctx, startLimit, func(ctx context.Context) (err error) {
		admin, err = client.New(ctx, c.addrs[0], client.WithDialFunc(dialPlain))
		return err
	})
	if err != nil {
		return err
	}
	defer admin.Close()
	for i := 1; i < members; i++ {
		if err := admin.Add(ctx, client.NodeInfo{ID: uint64(i + 1), Address: c.addrs[i], Role: client.Voter}); err != nil {
			return err
		}
	}
	text, err := contentsOf(ctx, mirror)
	if err != nil {
		return fmt.Errorf("read %s: %w", mirror, err)
	}
	conn, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	if _, err := conn.conn.ExecContext(ctx, text); err != nil {
		return err
	}
	var revision int64
	err = conn.conn.QueryRowContext(ctx, "SELECT revision FROM cluster").Scan(&revision)
	c.revision.Store(revision)
	return err
}

// contentsOf returns SQL that rebuilds the database of a file.
func contentsOf(ctx context.Context, file string) (string, error) {
	db, err := sql.Open("sqlite3", "file:"+file+"?mode=ro&immutable=1")
	if err != nil {
		return "", err
	}
	defer db.Close()
	list := func(query string, args ...any) (lines []string, err error) {
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				return nil, err
			}
			lines = append(lines, line)
		}
		return lines, rows.Err()
	}
	const tables = "FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' AND type = 'table' " +
		"ORDER BY rowid"
	text, err := list("SELECT sql " + tables)
	if err != nil {
		return "", err
	}
	names, err := list("SELECT name " + tables)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		row, err := list("SELECT group_concat('quote(' || name || ')', ' || '','' || ') FROM pragma_table_info(?)", name)
		if err != nil {
			return "", err
		}
		inserts, err := list("SELECT 'INSERT INTO " + name + " VALUES (' || " + row[0] + " || ')' FROM " + name)
		if err != nil {
			return "", err
		}
		text = append(text, inserts...)
	}
	rest, err := list("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND type IN ('index', 'trigger', 'view') " +
		"ORDER BY rowid")
	lines := slices.Concat([]string{"BEGIN; PRAGMA defer_foreign_keys = ON"}, text, rest, []string{"COMMIT"})
	return strings.Join(lines, ";\n"), err
}

// open makes a connection to the leader.
func (c *engineCluster) open(ctx context.Context) (*engineConn, error) {
	store := client.NewInmemNodeStore()
	var nodes []client.NodeInfo
	for i, addr := range c.addrs {
		nodes = append(nodes, client.NodeInfo{ID: uint64(i + 1), Address: addr})
	}
	if err := store.Set(ctx, nodes); err != nil {
		return nil, err
	}
	d, err := driver.New(store, driver.WithDialFunc(dialPlain))
	if err != nil {
		return nil, err
	}
	connector, err := d.OpenConnector("muster")
	if err != nil {
		return nil, err
	}
	e := &engineConn{cluster: c, db: sql.OpenDB(connector)}
	e.conn, err = e.db.Conn(ctx)
	return e, err
}

func (c *engineCluster) processes() []*process { return c.procs }

func (c *engineCluster) links() *links { return nil }

func (c *engineCluster) leader(context.Context) (int, error)      { return 0, nil }
func (c *engineCluster) caughtUp(context.Context, int) error      { return nil }
func (c *engineCluster) transfer(context.Context, int, int) error { return errors.ErrUnsupported }
func (c *engineCluster) dial(member int, _ bool) (conn, error)    { return c.open(context.Background()) }
func (c *engineConn) read(context.Context, string) error          { return errors.ErrUnsupported }
func (c *engineConn) write(ctx context.Context, _ string) error   { return c.transaction(ctx, 1) }

// engineConn is the only writing connection.
type engineConn struct {
	cluster *engineCluster
	db      *sql.DB
	conn    *sql.Conn
}

func (c *engineConn) close() {
	c.conn.Close()
	c.db.Close()
}

// transaction mints n tokens in one text, like muster's writer.
func (c *engineConn) transaction(ctx context.Context, n int) error {
	_, err := c.conn.ExecContext(ctx, mintText(c.cluster.revision.Load()+1, n))
	if err == nil {
		c.cluster.revision.Add(1)
	}
	return err
}

// mintStatements has muster's statements for a join token and for the batch; a test of package store compares them.
//
//go:embed mint.sql
var mintStatements string

var mintCount atomic.Int64

// mintText is a transaction of n mints, with values of muster's sizes.
func mintText(revision int64, n int) string {
	const at, later = "'2030-01-02T03:04:05Z'", "'2030-01-02T04:04:05Z'"
	lines := strings.Split(strings.TrimSpace(mintStatements), "\n")
	tokens, _, _ := strings.Cut(lines[0], "(?")
	audits, _, _ := strings.Cut(lines[1], "(?")
	ids := make([]string, n)
	var b strings.Builder
	row := func(i int, into, format string, args ...any) {
		if i == 0 {
			b.WriteString(into)
		} else {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, format, args...)
	}
	b.WriteString("BEGIN;")
	for i := range ids {
		ids[i] = fmt.Sprintf("%012x%020x", time.Now().UnixMilli(), mintCount.Add(1))
		row(i, tokens, "('%s','muster',NULL,'','{}','','','',1,'admin (%032x)',%s,%s,%d,%d)",
			ids[i], 7, at, later, revision, revision)
	}
	b.WriteByte(';')
	for i, id := range ids {
		row(i, audits, "(%d,%d,%s,'admin (%032x)',1,'127.0.0.1','join_token.create','join_token/%s','ok','','%s')",
			revision, i+1, at, 7, id, id)
	}
	fmt.Fprintf(&b, ";UPDATE cluster SET revision = %d, batch_id = '%032x';COMMIT", revision, revision)
	return b.String()
}
