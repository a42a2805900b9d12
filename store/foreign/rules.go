package foreign

import (
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
	for _, line := range shape {
		object := strings.SplitN(line, " ", 4) // of selectShape
		if len(object) < 4 || object[0] != "table" {
			continue
		}
		checks := checksOf(object[3])
		if len(checks) == 0 {
			continue
		}
		found, err := texts(conn, brokenCheck(object[1], checks), 1)
		if err != nil {
			return damagedState("table " + object[1] + " cannot be read")
		}
		if len(found) == 0 {
			continue
		}
		i, err := strconv.Atoi(found[0])
		if err != nil {
			return err
		}
		return damagedState("a row of table " + object[1] + " breaks CHECK (" + checks[i] + ")")
	}
	return nil
}

func damagedState(why string) error {
	return engine.Refuse(engine.Invalid, "the archive's state is damaged: %s; use another backup", why)
}
