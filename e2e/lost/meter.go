// Package lost measures in tests of real processes the time that the machine itself loses, so that bounds judge muster
// and not what else runs beside it.
package lost

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/e2e/processes"
)

// Meter is a measurement. Every tenth of a second it does a round of work as a small request is: a few changes between
// two processes, a little computing, a file that is synced. What a round takes beyond the fastest one is time that the
// machine has lost, but no more of it than the share of the processors that others than the members had: members that
// hold each other up are no excuse.
type Meter struct {
	ended chan error
	stop  chan struct{}
	pids  func() []int // of the members

	mu     sync.Mutex
	best   time.Duration
	rounds []round
}

// round is one look at the machine, from the end of the one before it.
type round struct {
	from, to time.Time
	work     time.Duration
	others   float64       // share of the processors that did not work for the members, and not idly
	lost     time.Duration // of from..to
}

const (
	asEcho   = "MUSTER_E2E_ECHO" // in the environment makes the tests' binary the other side of a round
	everyRun = 100 * time.Millisecond
	changes  = 10
	endsIn   = 30 * time.Second
)

// Echo is the other side of a round, a process of its own: it ends the process, if it is to be that. TestMain calls it
// first.
func Echo() {
	if os.Getenv(asEcho) == "" {
		return
	}
	defer os.Exit(0)
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(os.Stdin, b); err != nil {
			return
		}
		if _, err := os.Stdout.Write(b); err != nil {
			return
		}
	}
}

// Observe starts a measurement whose file is in dir; pids lists the processes that the bounds judge.
func Observe(dir string, pids func() []int) (*Meter, error) {
	cmd := exec.Command(processes.Self())
	cmd.Env = processes.Environment(asEcho + "=1")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	file, err3 := os.Create(filepath.Join(dir, "canary"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	p, err := processes.Start(cmd)
	if err != nil {
		return nil, err
	}
	m := &Meter{ended: make(chan error, 1), stop: make(chan struct{}), pids: pids}
	go func() {
		m.run(in, out, file)
		in.Close()
		file.Close()
		_, err := p.Exit(endsIn)
		m.ended <- err
	}()
	return m, nil
}

// Close ends the measurement. It blocks until the other side of the rounds has ended.
func (m *Meter) Close() error {
	close(m.stop)
	return <-m.ended
}

func (m *Meter) run(in io.Writer, out io.Reader, file *os.File) {
	last, before := time.Now(), usage(m.pids())
	for {
		select {
		case <-m.stop:
			return
		case <-time.After(everyRun):
		}
		begin := time.Now()
		if !work(in, out, file) {
			return
		}
		now, after := time.Now(), usage(m.pids())
		m.add(round{from: last, to: now, work: now.Sub(begin), others: after.others(before)})
		last, before = now, after
	}
}

// work is one round.
func work(in io.Writer, out io.Reader, file *os.File) bool {
	b := make([]byte, 4096)
	for range changes {
		if _, err := in.Write(b[:1]); err != nil {
			return false
		}
		if _, err := io.ReadFull(out, b[:1]); err != nil {
			return false
		}
		for range 20 {
			sum := sha256.Sum256(b)
			copy(b[1:], sum[:])
		}
	}
	_, err := file.WriteAt(b, 0)
	return err == nil && file.Sync() == nil
}

// add notes a round and what was lost in it: a round that took three times as long as the fastest one says that two
// thirds of the time were lost.
func (m *Meter) add(r round) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.best == 0 || r.work < m.best {
		m.best = r.work
	}
	passed := r.to.Sub(r.from)
	ideal := everyRun + m.best
	share := max(1-float64(m.best)/float64(r.work), 1-float64(ideal)/float64(passed))
	r.lost = time.Duration(max(0, min(share, r.others)) * float64(passed))
	m.rounds = append(m.rounds, r)
}

// Lost is how much of a stretch of time the machine has lost.
func (m *Meter) Lost(from, to time.Time) (lost time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range slices.Backward(m.rounds) {
		if !r.to.After(from) {
			break
		}
		common := min(to.Sub(r.from), r.to.Sub(from), r.to.Sub(r.from), to.Sub(from))
		if common > 0 {
			lost += time.Duration(float64(r.lost) * float64(common) / float64(r.to.Sub(r.from)))
		}
	}
	return lost
}

// Within repeats try until it succeeds or the time is up, not counting what the machine has lost.
func (m *Meter) Within(limit time.Duration, try func() error) error {
	begin := time.Now()
	for {
		err := try()
		now := time.Now()
		if err == nil || now.Sub(begin)-m.Lost(begin, now) > limit {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// String sums up.
func (m *Meter) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rounds) == 0 {
		return "not looked at"
	}
	var works []time.Duration
	var lost time.Duration
	others := 0.0
	for _, r := range m.rounds {
		works = append(works, r.work)
		lost += r.lost
		others += r.others / float64(len(m.rounds))
	}
	slices.Sort(works)
	of := m.rounds[len(m.rounds)-1].to.Sub(m.rounds[0].from)
	return fmt.Sprintf("others than members had %.0f %% of the processors; a round of work took %v at best, %v in the "+
		"median, %v at most; "+
		"%v of %v were lost", 100*others, m.best.Round(time.Microsecond), works[len(works)/2].Round(time.Microsecond),
		works[len(works)-1].Round(time.Millisecond), lost.Round(100*time.Millisecond), of.Round(time.Second))
}

// cpu is what the processors have done so far, in ticks of the kernel.
type cpu struct {
	total, idle float64
	members     map[int]float64
}

func usage(pids []int) cpu {
	c := cpu{members: map[int]float64{}}
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line) {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil || i > 8 { // guests are counted as users, too
			continue
		}
		c.total += n
		if i == 4 || i == 5 { // idle, iowait
			c.idle += n
		}
	}
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		if f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])); len(f) > 12 {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			c.members[pid] = user + system
		}
	}
	return c
}

// others is the share that neither the members had since before nor nobody.
func (c cpu) others(before cpu) float64 {
	total := c.total - before.total
	if total < 0.02*float64(runtime.NumCPU())*100*everyRun.Seconds() {
		return 0
	}
	own := 0.0
	for pid, n := range c.members {
		if was, ok := before.members[pid]; ok {
			own += n - was
		}
	}
	return max(0, min(1, (total-(c.idle-before.idle)-own)/total))
}
