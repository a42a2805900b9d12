package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// value is one measured figure. Latencies are in milliseconds.
type value struct {
	Value  float64 `json:"value"`
	P50    float64 `json:"p50Ms,omitempty"`
	P99    float64 `json:"p99Ms,omitempty"`
	Max    float64 `json:"maxMs,omitempty"`
	CPU    float64 `json:"serverCPUMicrosecondsPerOp,omitempty"`
	N      int     `json:"n,omitempty"`
	Failed int     `json:"failed,omitempty"`
	Error  string  `json:"error,omitempty"`

	Batch    float64 `json:"batch,omitempty"`    // writes in a transaction, on average
	CommitMs float64 `json:"commitMs,omitempty"` // from the hand-over to dqlite until a majority has it
	GapMs    float64 `json:"gapMs,omitempty"`    // from then to the next commit
}

func (v *value) latencies(all []time.Duration) {
	s := sorted(all)
	v.N = len(s)
	v.P50, v.P99, v.Max = milliseconds(quantile(s, 0.5)), milliseconds(quantile(s, 0.99)), milliseconds(quantile(s, 1))
}

// outcome holds the values of the measured systems by name.
type outcome map[string]*value

func (o outcome) set(name string, v value) { o[name] = &v }
func (o outcome) fail(s system, err error) { o[s.name()] = &value{Error: err.Error()} }
func (o outcome) ok(name string) (value, bool) {
	v := o[name]
	if v == nil || v.Value == 0 && v.Error != "" {
		return value{}, false
	}
	return *v, true
}

// goal is muster's goal: a ratio to etcd, or a value.
type goal struct {
	text     string
	relative bool // to etcd; unknown without etcd
	met      func(muster value, ratio float64) bool
}

func ratioOf(least float64) *goal {
	return &goal{fmt.Sprintf("≥ %.1f × etcd", least), true, func(_ value, ratio float64) bool { return ratio >= least }}
}

func below(limit float64, unit string) *goal {
	return &goal{fmt.Sprintf("< %g %s", limit, unit), false, func(v value, _ float64) bool { return v.Value < limit }}
}

// row is one line of the table.
type row struct {
	What    string  `json:"what"`
	Unit    string  `json:"unit"`
	Muster  *value  `json:"muster"`
	Etcd    *value  `json:"etcd"`
	EtcdTLS *value  `json:"etcdTLS,omitempty"`
	Engine  *value  `json:"engine,omitempty"`
	Rival   *value  `json:"rival,omitempty"` // another muster
	Ratio   float64 `json:"ratio,omitempty"` // above 1: muster is better
	Goal    string  `json:"goal,omitempty"`
	Met     *bool   `json:"met,omitempty"`
}

// columns are the compared systems.
var columns = []string{"muster", "etcd", "etcd-tls", "engine", "rival"}

func (l *row) values() []*value { return []*value{l.Muster, l.Etcd, l.EtcdTLS, l.Engine, l.Rival} }

type report struct {
	Machine map[string]string `json:"machine"`
	Rows    []row             `json:"rows"`
	Notes   []string          `json:"notes,omitempty"`
	failed  bool              // a measurement of muster failed
}

// add adds a row. With lower, smaller values are better.
func (r *report) add(what, unit string, lower bool, o outcome, g *goal) {
	line := row{
		What:    what,
		Unit:    unit,
		Muster:  o["muster"],
		Etcd:    o["etcd"],
		EtcdTLS: o["etcd-tls"],
		Engine:  o["engine"],
		Rival:   o["rival"],
	}
	muster, haveMuster := o.ok("muster")
	etcd, haveEtcd := o.ok("etcd")
	if haveMuster && haveEtcd && muster.Value > 0 && etcd.Value > 0 {
		line.Ratio = muster.Value / etcd.Value
		if lower {
			line.Ratio = 1 / line.Ratio
		}
	}
	if g != nil {
		line.Goal = g.text
		if haveMuster && (!g.relative || line.Ratio > 0) {
			met := g.met(muster, line.Ratio)
			line.Met = &met
		}
	}
	for _, name := range columns {
		if v := o[name]; v != nil && v.Error != "" {
			r.note("%s, %s: %s", what, name, v.Error)
			r.failed = r.failed || name == "muster"
		}
	}
	r.Rows = append(r.Rows, line)
	fmt.Fprintf(os.Stderr, "bench: %s: CPU %s; %s\n", what, line.cpu(), line.figures())
}

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	fmt.Fprintln(os.Stderr, "bench: note:", r.Notes[len(r.Notes)-1])
}

func (v *value) show(unit string) string {
	switch {
	case v == nil:
		return "-"
	case v.Value == 0 && v.Error != "":
		return "failed"
	case v.Value >= 100:
		return fmt.Sprintf("%.0f %s", v.Value, unit)
	}
	return fmt.Sprintf("%.3g %s", v.Value, unit)
}

func (v *value) showLatency() string {
	if v == nil || v.N == 0 || v.P50 == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f / %.2f", v.P50, v.P99)
}

func (v *value) showCPU() string {
	if v == nil || v.CPU == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", v.CPU)
}

func (v *value) showCommit() string {
	if v == nil || v.Batch == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f / %.1f / %.1f", v.Batch, v.CommitMs, v.GapMs)
}

// cpu formats the servers' cost of an operation, for each system.
func (l *row) cpu() string {
	return join(l.values(), (*value).showCPU)
}

// figures formats the value of each system, with the unit once.
func (l *row) figures() string {
	return join(l.values(), func(v *value) string { return strings.TrimSuffix(v.show(l.Unit), " "+l.Unit) }) + " " + l.Unit
}

// join omits unmeasured systems at the end, but not both of the first two.
func join(values []*value, show func(*value) string) string {
	var text []string
	for _, v := range values {
		text = append(text, show(v))
	}
	for len(text) > 2 && text[len(text)-1] == "-" {
		text = text[:len(text)-1]
	}
	return strings.Join(text, " / ")
}

func (r *report) print(out io.Writer) {
	fmt.Fprintln(out)
	for _, key := range []string{"muster", "etcd", "machine", "disk", "load", "settings"} {
		fmt.Fprintf(out, "%-9s %s\n", key, cmp.Or(r.Machine[key], "-"))
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	systems := strings.Join(columns, " / ")
	fmt.Fprintf(w,
		"\tserver CPU µs/op: %s\t%s\tratio\tgoal\t\tmuster p50 / p99 ms\tetcd p50 / p99 ms\tbatch / commit ms / gap ms\n",
		systems, systems)
	for _, l := range r.Rows {
		ratio, met := "-", ""
		if l.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", l.Ratio)
		}
		if l.Met != nil {
			met = map[bool]string{true: "ok", false: "MISSED"}[*l.Met]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.What, l.cpu(), l.figures(), ratio,
			cmp.Or(l.Goal, "-"), met, l.Muster.showLatency(), l.Etcd.showLatency(),
			join([]*value{l.Muster, l.Rival}, (*value).showCommit))
	}
	w.Flush()
	fmt.Fprintln(out,
		"\nratio: how many times better muster is than etcd (above 1: more per second, or less time or memory)")
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
}

func (r *report) save(name string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}
