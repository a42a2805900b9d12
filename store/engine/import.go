package engine

import (
	"context"
	"database/sql"
	"time"
)

// importState makes the whole contents of a file the first transaction of a new cluster. It does nothing when that has
// happened already.
func (l *leadership) importState(ctx context.Context, path string) error {
	var founded bool
	if err := l.db.within(commitTimeout, func(c *sql.Conn) error {
		return c.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM cluster)").Scan(&founded)
	}); err != nil || founded {
		return err
	}
	o, err := OpenFile(path, l.engine.cfg.Schema.Latest)
	if err != nil {
		return err
	}
	defer o.Close()
	v := &View{s: o.session}
	names, err := Collect(v, func(rows *sql.Rows) (name string, err error) {
		err = rows.Scan(&name)
		return name, err
	}, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "+
		"AND name <> 'goose_db_version' ORDER BY name")
	if err != nil {
		return err
	}
	var all script
	for _, name := range names {
		t, err := v.Table(name)
		if err != nil {
			return err
		}
		if err := v.Each(&t, func(row []any) error {
			all.add(Statement{Query: t.Insert(), Args: row})
			return nil
		}); err != nil {
			return err
		}
	}
	text, err := all.text()
	if err != nil {
		return err
	}
	return l.db.within(commitTimeout+time.Duration(len(text)>>20)*commitPerMiB, func(c *sql.Conn) error {
		_, err := c.ExecContext(ctx, text)
		return err
	})
}
