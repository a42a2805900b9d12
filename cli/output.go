package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// say writes a sentence to stderr.
func (e *environment) say(format string, args ...any) {
	fmt.Fprintf(e.stderr, format+"\n", args...)
}

// done reports what a command did: a sentence on stderr, or {"message": sentence} on stdout with -o json.
func (e *environment) done(format string, args ...any) error {
	if e.output == "json" {
		return e.json(map[string]string{"message": fmt.Sprintf(format, args...)})
	}
	e.say(format, args...)
	return nil
}

// secret prints a secret alone on stdout and what there is to say about it on stderr; with -o json, the object.
func (e *environment) secret(object any, secret, format string, args ...any) error {
	if e.output == "json" {
		return e.json(object)
	}
	if _, err := fmt.Fprintln(e.stdout, secret); err != nil {
		return err
	}
	e.say(format, args...)
	return nil
}

func (e *environment) json(v any) error {
	encoder := json.NewEncoder(e.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// list prints items as a table with one row each, or as a JSON array.
func list[T any](e *environment, items []T, header []string, row func(T) []any) error {
	if e.output == "json" {
		return e.json(append([]T{}, items...)) // never null
	}
	rows := make([][]any, len(items))
	for i, item := range items {
		rows[i] = row(item)
	}
	if e.output == "name" {
		return e.nameColumn(header, rows)
	}
	return e.table(header, rows)
}

// nameColumn prints what each item is called, a line each: what other commands take for it.
func (e *environment) nameColumn(header []string, rows [][]any) error {
	column := max(0, slices.Index(header, e.nameIn))
	for _, row := range rows {
		if _, err := fmt.Fprintln(e.stdout, cell(row[column])); err != nil {
			return err
		}
	}
	return nil
}

func (e *environment) table(header []string, rows [][]any) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	line := strings.Join(header, "\t")
	for _, row := range rows {
		fmt.Fprintln(w, line)
		cells := make([]string, len(row))
		for i, value := range row {
			cells[i] = cell(value)
		}
		line = strings.Join(cells, "\t")
	}
	fmt.Fprintln(w, line)
	return w.Flush()
}

// cell writes one value for a table: "-" for what is absent, yes and no, times in UTC, and nothing that would move the
// terminal's cursor.
func cell(value any) string {
	text := ""
	switch v := value.(type) {
	case bool:
		text = "no"
		if v {
			text = "yes"
		}
	case time.Time:
		if !v.IsZero() {
			text = v.UTC().Format(time.RFC3339)
		}
	case uint64: // an id, of which 0 is none
		if v != 0 {
			text = strconv.FormatUint(v, 10)
		}
	default:
		text = fmt.Sprint(v)
	}
	if text == "" {
		return "-"
	}
	return printable(text)
}

// printable escapes control characters, tabs and line ends included.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
