package foreign

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/mattn/go-sqlite3"

	"muster/store/engine"
)

// SQLite parses no CHECK constraint of a read-only database, so its integrity_check skips them. The constraints come
// from the text of our own schema and are evaluated by queries.

var checkWord = regexp.MustCompile(`\bCHECK \(`)

// checksOf returns the expressions of the CHECK constraints in the text of a table.
func checksOf(sql string) (list []string) {
	for _, at := range checkWord.FindAllStringIndex(sql, -1) {
		open, quoted := 1, false
		for i := at[1]; i < len(sql) && open > 0; i++ {
			switch c := sql[i]; {
			case c == '\'':
				quoted = !quoted
			case quoted:
			case c == '(':
				open++
			case c == ')':
				if open--; open == 0 {
					list = append(list, sql[at[1]:i])
				}
			}
		}
	}
	return list
}

// Rules are the CHECK constraints of one table.
type Rules struct {
	Table  string
	Query  string // returns the number of the first constraint that a row breaks; no row when none does
	checks []string
}

// Broken says in words that a row breaks the constraint that Query has returned.
func (r *Rules) Broken(number string) (string, error) {
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 || i >= len(r.checks) {
		return "", errors.New("store/foreign: there is no constraint " + strconv.Quote(number))
	}
	return "a row of table " + r.Table + " breaks CHECK (" + r.checks[i] + ")", nil
}

// RulesAt returns the CHECK constraints of a schema version.
func RulesAt(ctx context.Context, version int64) ([]Rules, error) {
	shape, err := shapeAt(ctx, version)
	return rulesOf(shape), err
}

// rulesOf returns the CHECK constraints of a schema.
func rulesOf(shape []string) (list []Rules) {
	for _, line := range shape {
		object := strings.SplitN(line, " ", 4) // of selectShape
		if len(object) < 4 || object[0] != "table" {
			continue
		}
		if checks := checksOf(object[3]); len(checks) > 0 {
			list = append(list, Rules{Table: object[1], Query: brokenCheck(object[1], checks), checks: checks})
		}
	}
	return list
}

// brokenCheck returns the query for the number of the first constraint that a row of a table breaks.
func brokenCheck(table string, checks []string) string {
	var which []string
	for i, check := range checks {
		which = append(which, "WHEN NOT ("+check+") THEN '"+strconv.Itoa(i)+"'")
	}
	return strings.Join([]string{"SELECT CASE", strings.Join(which, " "), "END FROM", table, "WHERE NOT ((" +
		strings.Join(checks, ") AND (") + ")) LIMIT 1"}, " ")
}

// checkRows refuses a state with a row that breaks a CHECK constraint of a schema, by table and constraint.
func checkRows(conn *sqlite3.SQLiteConn, shape []string) error {
	for _, r := range rulesOf(shape) {
		found, err := texts(conn, r.Query, 1)
		if err != nil {
			return damagedState("table " + r.Table + " cannot be read")
		}
		if len(found) == 0 {
			continue
		}
		why, err := r.Broken(found[0])
		if err != nil {
			return err
		}
		return damagedState(why)
	}
	return nil
}

func damagedState(why string) error {
	return engine.Refuse(engine.Invalid, "the archive's state is damaged: %s; use another backup", why)
}
