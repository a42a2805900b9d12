package store

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// made says in a row of the audit what was made: NAME=VALUE with blanks between them, what is empty left out. A value
// with blanks or quotes is quoted as in Go. No secret may stand in it.
func made(pairs ...any) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		value := madeValue(pairs[i+1])
		if value == "" {
			continue
		}
		if strings.ContainsAny(value, " \"\n\t\\") {
			value = strconv.Quote(value)
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(pairs[i].(string))
		b.WriteByte('=')
		b.WriteString(value)
	}
	return b.String()
}

func madeValue(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []string:
		return strings.Join(v, ",")
	case time.Duration:
		if v <= 0 {
			return ""
		}
		return v.Round(time.Second).String()
	case map[string]string:
		list := make([]string, 0, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			list = append(list, k+":"+v[k])
		}
		return strings.Join(list, ",")
	case uint64:
		if v == 0 {
			return ""
		}
		return strconv.FormatUint(v, 10)
	case int:
		return strconv.Itoa(v)
	}
	return fmt.Sprint(v)
}

// lifetime is how long something will be good that expires at a time; 0 for without end.
func lifetime(now time.Time, expires *time.Time) time.Duration {
	if expires == nil {
		return 0
	}
	return expires.Sub(now)
}
