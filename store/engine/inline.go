package engine

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Inline returns query with its arguments as SQL literals, in the form that dqlite receives.
func Inline(query string, args []any) (string, error) {
	var b strings.Builder
	err := inline(&b, query, args)
	return b.String(), err
}

// inline appends query to b and replaces every `?` by the SQL literal of the next argument and every `?N` by that of
// argument N. A statement uses one form or the other.
//
// A batch travels to dqlite as one text, because each bound statement would be a round trip of its own and dqlite takes
// arguments for single statements only. Placeholders inside string literals, quoted names and comments stay. It accepts
// the argument types to which Tx.Exec converts: nil, int64, string and []byte.
func inline(b *strings.Builder, query string, args []any) error {
	next := 0
	used := make([]bool, len(args))
	for i := 0; i < len(query); {
		switch c := query[i]; {
		case c == '\'' || c == '"' || c == '`':
			end := closing(query, i)
			b.WriteString(query[i:end])
			i = end
		case c == '-' && strings.HasPrefix(query[i:], "--"):
			end := strings.IndexByte(query[i:], '\n')
			if end < 0 {
				end = len(query) - i
			}
			i += end
		case strings.HasPrefix(query[i:], "/*"):
			end := strings.Index(query[i:], "*/")
			if end < 0 {
				return fmt.Errorf("engine: statement ends inside a comment")
			}
			b.WriteByte(' ')
			i += end + 2
		case c == '?':
			end := i + 1
			for end < len(query) && query[end] >= '0' && query[end] <= '9' {
				end++
			}
			n := next
			if end > i+1 {
				number, err := strconv.Atoi(query[i+1 : end])
				if err != nil {
					return fmt.Errorf("engine: placeholder %s: %w", query[i:end], err)
				}
				n = number - 1
			} else {
				next++
			}
			if n < 0 || n >= len(args) {
				return fmt.Errorf("engine: statement has a placeholder beyond its %d arguments", len(args))
			}
			if err := literal(b, args[n]); err != nil {
				return err
			}
			used[n] = true
			i = end
		default:
			b.WriteByte(c)
			i++
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		return fmt.Errorf("engine: statement does not use argument %d of %d", i+1, len(args))
	}
	return nil
}

// closing returns the index after the quoted run that starts at i; a doubled quote does not end it.
func closing(s string, i int) int {
	q := s[i]
	for j := i + 1; j < len(s); j++ {
		if s[j] != q {
			continue
		}
		if j+1 < len(s) && s[j+1] == q {
			j++
			continue
		}
		return j + 1
	}
	return len(s)
}

func literal(b *strings.Builder, v any) error {
	switch v := v.(type) {
	case nil:
		b.WriteString("NULL")
	case int64:
		if v < 0 { // after a minus, the sign would begin a comment
			b.WriteByte(' ')
		}
		b.WriteString(strconv.FormatInt(v, 10))
	case string:
		if strings.IndexByte(v, 0) >= 0 { // a NUL would end the statement's text
			b.WriteString("CAST(x'")
			b.WriteString(hex.EncodeToString([]byte(v)))
			b.WriteString("' AS TEXT)")
			return nil
		}
		b.WriteByte('\'')
		b.WriteString(strings.ReplaceAll(v, "'", "''"))
		b.WriteByte('\'')
	case []byte:
		b.WriteString("x'")
		b.WriteString(hex.EncodeToString(v))
		b.WriteByte('\'')
	default:
		return fmt.Errorf("engine: %T is not a type that a statement takes", v)
	}
	return nil
}
