package faults

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// forever is the return of a request whose outcome is not known: it may take effect at any later time, or never.
const forever = int64(1) << 62

// timeline makes operations of those records that constrain a model. use reports whether one does.
func timeline(ops []*op, use func(*op) bool) (list []porcupine.Operation) {
	pending := 1 << 20
	for _, o := range ops {
		if !use(o) {
			continue
		}
		x := porcupine.Operation{
			ClientId: o.Client,
			Input:    o,
			Output:   o,
			Call:     o.Call,
			Return:   o.Return,
		}
		if o.open() {
			pending++
			x.ClientId, x.Return = pending, forever
		}
		list = append(list, x)
	}
	return list
}

func stepOf[S comparable](step func(S, *op) (bool, S)) func(any, any, any) (bool, any) {
	return func(state, _, output any) (bool, any) {
		ok, next := step(state.(S), output.(*op))
		return ok, next
	}
}

func describe(_, output any) string {
	o := output.(*op)
	return fmt.Sprintf("%s %s %s → %s %d %s v%d id %d (%d ids)", o.Kind, o.Key, o.Value, o.Verdict, o.Status, o.Got,
		o.Version, o.ID, len(o.IDs))
}

// register is a secret: value and version, empty when there is none.
type register struct {
	value   string
	version int
}

func stepRegister(s register, o *op) (bool, register) {
	switch {
	case o.Kind == "put":
		next := register{o.Value, s.version + 1}
		return o.open() || o.Version == next.version && (o.Status == 201) == (s.value == ""), next
	case o.Kind == "delete" && o.is(refused):
		return s.value == "", s
	case o.Kind == "delete":
		return o.open() || s.value != "", register{}
	default:
		return o.Got == s.value && o.Version == s.version, s
	}
}

// uses is who has joined with a token of so many uses: "key=id" for each, in order.
type uses string

func stepUses(limit int) func(uses, *op) (bool, uses) {
	return func(s uses, o *op) (bool, uses) {
		var all []string
		if s != "" {
			all = strings.Split(string(s), ",")
		}
		i := slices.IndexFunc(all, func(x string) bool { return strings.HasPrefix(x, o.Key+"=") })
		switch {
		case o.is(refused):
			return i < 0 && len(all) == limit, s
		case i >= 0 && o.open():
			return true, s
		case i >= 0 && strings.HasSuffix(all[i], "=0"): // admitted without an answer
			all[i] = fmt.Sprintf("%s=%d", o.Key, o.ID)
		case i >= 0:
			return all[i] == fmt.Sprintf("%s=%d", o.Key, o.ID), s
		case len(all) == limit:
			return o.open(), s
		default:
			all = append(all, fmt.Sprintf("%s=%d", o.Key, o.ID))
		}
		slices.Sort(all)
		return true, uses(strings.Join(all, ","))
	}
}

// life is one member: not yet, there, gone for good.
type life int

func stepLife(id uint64) func(life, *op) (bool, life) {
	return func(s life, o *op) (bool, life) {
		switch {
		case o.Kind == "join":
			return s < 2, 1
		case o.Kind == "remove" && o.is(refused):
			return s != 1, s
		case o.Kind == "remove" && o.open():
			return true, max(s, min(s*2, 2))
		case o.Kind == "remove":
			return s == 1, 2
		default:
			return slices.Contains(o.IDs, id) == (s == 1), s
		}
	}
}

// stepLog is the list of tokens as a log: each token has the place that the audit gives it, and a list shows those up
// to some place.
func stepLog(place map[uint64]int) func(int, *op) (bool, int) {
	return func(s int, o *op) (bool, int) {
		if o.Kind == "mint" {
			return place[o.ID] == s, s + 1
		}
		if len(o.IDs) != s {
			return false, s
		}
		for _, id := range o.IDs {
			if p, ok := place[id]; !ok || p >= s {
				return false, s
			}
		}
		return true, s
	}
}

// check runs one model. What does not fit is a violation, with a picture of the record where it breaks.
func check[S comparable](c *campaign, what string, step func(S, *op) (bool, S), list []porcupine.Operation) {
	var zero S
	model := porcupine.Model{Init: func() any { return zero }, Step: stepOf(step), DescribeOperation: describe,
		DescribeState: func(s any) string { return fmt.Sprintf("%+v", s) }}
	result, info := porcupine.CheckOperationsVerbose(model, list, time.Minute)
	switch result {
	case porcupine.Illegal:
		file := filepath.Join(c.root, strings.NewReplacer(" ", "-", "/", "-").Replace(what)+".html")
		if err := porcupine.VisualizePath(model, info, file); err != nil {
			c.note("no picture of %s: %v", what, err)
		}
		c.violate("%s: its %d requests fit no order in which a single machine could have answered them", what, len(list))
	case porcupine.Unknown:
		c.note("%s: whether its %d requests are linearisable was not found out in a minute", what, len(list))
	}
}

// checkRegisters checks every secret, and that no value was read that an answer had said was not stored.
func (c *campaign) checkRegisters(ops []*op) {
	keys := map[string][]*op{}
	never := map[string]*op{}
	for _, o := range ops {
		switch o.Kind {
		case "put", "get", "delete":
			keys[o.Key] = append(keys[o.Key], o)
		}
		if o.Kind == "put" && (o.is(nothing) || o.is(refused)) {
			never[o.Value] = o
		}
	}
	for _, o := range ops {
		if x := never[o.Got]; o.Kind == "get" && o.is(done) && x != nil {
			c.violate("a sure answer that is not: put %s=%s through %s was answered %d %q, and read through %s it is there",
				x.Key, x.Value, x.Through, x.Status, x.Text, o.Through)
			x.Verdict = unknown.String() // so that only what else is wrong is reported
			delete(never, o.Got)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		check(c, "the secret "+key, stepRegister, timeline(keys[key], func(o *op) bool {
			return o.is(done) || o.open() && o.Kind != "get" || o.is(refused) && o.Status == 404
		}))
	}
}

// checkLog checks the list of minted tokens against the order in which the audit has them.
func (c *campaign) checkLog(ops []*op, order []uint64) {
	place := map[uint64]int{}
	for i, id := range order {
		if _, twice := place[id]; twice {
			c.violate("one request has made two tokens for node %d", id)
		}
		place[id] = i
	}
	var list []*op
	for _, o := range ops {
		_, there := place[o.ID]
		switch {
		case o.Kind == "tokens" && o.is(done):
			list = append(list, o)
		case o.Kind != "mint":
		case o.is(done) && !there:
			c.violate("the token for node %d, which %s answered with 201, is not there", o.ID, o.Through)
		case there && (o.is(nothing) || o.is(refused) || o.is(unsent)):
			c.violate("a sure answer that is not: minting for node %d through %s was answered %d %q, and the token is there",
				o.ID, o.Through, o.Status, o.Text)
			o.Verdict = unknown.String()
			fallthrough
		case there:
			list = append(list, o)
		}
	}
	slices.SortStableFunc(list, func(a, b *op) int { return cmp.Compare(a.Call, b.Call) })
	check(c, "the list of tokens", stepLog(place), timeline(list, func(*op) bool { return true }))
}

// checkJoins checks that no token admits more than it may, that no id is given twice, and the life of each member.
func (c *campaign) checkJoins(ops []*op) {
	tokens := map[string][]*op{}
	owner := map[uint64]string{}
	lives := map[uint64][]*op{}
	for _, o := range ops {
		switch {
		case o.Kind == "join":
			if o.is(refused) && !strings.Contains(o.Text, "already used") {
				continue // superseded by a removal, for instance: that is not about uses
			}
			tokens[o.Value] = append(tokens[o.Value], o)
			if o.is(done) {
				if before, ok := owner[o.ID]; ok && before != o.Key {
					c.violate("the id %d was given to %s and to %s", o.ID, before, o.Key)
				}
				owner[o.ID] = o.Key
				lives[o.ID] = append(lives[o.ID], o)
			}
		case o.Kind == "remove":
			lives[o.ID] = append(lives[o.ID], o)
		}
	}
	for _, token := range slices.Sorted(maps.Keys(tokens)) {
		check(c, "the uses of "+token, stepUses(tokenUses), timeline(tokens[token], func(o *op) bool {
			return o.is(done) || o.open() || o.is(refused)
		}))
	}
	for _, id := range slices.Sorted(maps.Keys(lives)) {
		all := lives[id]
		if _, joined := owner[id]; !joined {
			continue
		}
		for _, o := range ops {
			if o.Kind == "members" {
				all = append(all, o)
			}
		}
		check(c, fmt.Sprintf("member %d", id), stepLife(id), timeline(all, func(o *op) bool {
			return o.is(done) || o.Kind == "remove" && (o.open() || o.is(refused) && o.Status == 404)
		}))
	}
}
