// Package console writes for people and for scripts: tables, JSON, progress, questions. It knows neither commands nor
// clusters.
package console

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// JSON writes a value as indented JSON.
func JSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// Table writes rows in columns, below a header.
func Table(w io.Writer, header []string, rows [][]any) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := strings.Join(header, "\t")
	for _, row := range rows {
		fmt.Fprintln(out, line)
		cells := make([]string, len(row))
		for i, value := range row {
			cells[i] = Cell(value)
		}
		line = strings.Join(cells, "\t")
	}
	fmt.Fprintln(out, line)
	return out.Flush()
}

// Cell formats one value for a table: "-" for an absent value, yes and no, times in UTC. It escapes characters that
// would move the terminal's cursor.
func Cell(value any) string {
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
	case uint64: // an id; 0 is absent
		if v != 0 {
			text = strconv.FormatUint(v, 10)
		}
	default:
		text = fmt.Sprint(v)
	}
	if text == "" {
		return "-"
	}
	return Printable(text)
}

// Printable escapes control characters, including tabs and line ends.
func Printable(text string) string {
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
