package lost

import (
	"testing"
	"time"
)

// TestMeter: what is lost is what was measured, for no more than the others' share, and bounds are stretched by it.
func TestMeter(t *testing.T) {
	m := &Meter{}
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	m.add(round{from: at(0), to: at(102), work: 2 * time.Millisecond, others: 0.9})
	m.add(round{from: at(102), to: at(222), work: 20 * time.Millisecond, others: 1})   // ten times as long
	m.add(round{from: at(222), to: at(342), work: 20 * time.Millisecond, others: 0.1}) // members did that
	for _, x := range []struct{ from, to, lost int }{
		{0, 102, 0}, {102, 222, 108}, {222, 342, 12}, {0, 342, 120}, {162, 222, 54}, {162, 182, 18}, {500, 600, 0},
		{0, 50, 0},
	} {
		if got := m.Lost(at(x.from), at(x.to)).Round(time.Millisecond); got != time.Duration(x.lost)*time.Millisecond {
			t.Errorf("from %d to %d %v were lost, want %d ms", x.from, x.to, got, x.lost)
		}
	}
	before := cpu{total: 1000, idle: 500, members: map[int]float64{7: 100}}
	after := cpu{total: 1100, idle: 520, members: map[int]float64{7: 130, 8: 40}}
	if got := after.others(before); got != 0.5 {
		t.Errorf("others had %v of the processors, want half", got)
	}
}
