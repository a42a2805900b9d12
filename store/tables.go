package store

import (
	"context"
)

// delta is how many rows a restore has touched.
type delta struct{ Added, Changed, Removed int }

// become makes a table of the transaction hold the rows that it has in another database, and touches no row that is the
// same already.
func (t *Tx) become(ctx context.Context, r *registered, want *View) (d delta, err error) {
	tb, err := t.v.Table(r.name)
	if err != nil {
		return d, err
	}
	have := map[string][32]byte{}
	keys := map[string][]any{}
	if err := t.v.Each(&tb, func(row []any) error {
		key, text := tb.KeyOf(row)
		if !r.owns(text) {
			have[text], keys[text] = tb.Digest(row), key
		}
		return nil
	}); err != nil {
		return d, err
	}
	var added, changed [][]any
	if err := want.v.Each(&tb, func(row []any) error {
		if ctx.Err() != nil { // other writes wait meanwhile
			return errRestoreTime
		}
		_, text := tb.KeyOf(row)
		if r.owns(text) {
			return nil
		}
		sum, there := have[text]
		delete(have, text)
		if there && sum == tb.Digest(row) {
			return nil
		}
		if tb.Changed >= 0 {
			row[tb.Changed] = int64(t.Rev)
		}
		if there {
			changed = append(changed, row)
		} else {
			added = append(added, row)
		}
		return nil
	}); err != nil {
		return d, err
	}
	for text := range have {
		if err := t.exec(tb.Remove(), keys[text]...); err != nil {
			return d, err
		}
	}
	for _, row := range changed {
		if err := t.exec(tb.Upsert(), row...); err != nil {
			return d, err
		}
	}
	for _, row := range added {
		if err := t.exec(tb.Insert(), row...); err != nil {
			return d, err
		}
	}
	return delta{len(added), len(changed), len(have)}, nil
}
