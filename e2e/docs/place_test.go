package docs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/e2e/processes"
)

const (
	commandLimit = 2 * time.Minute // of one line; a backup gives way to whatever else the machine does
	portsOfPlace = 100
)

// place is a directory with its own ports, in which the blocks of a document are run by one shell.
type place struct {
	dir       string
	api, raft int // of the first member; the documents say 5000 and 7000
	run       string
	hold      net.Listener // keeps the ports from other places

	shell  *exec.Cmd
	stdin  io.WriteCloser
	lines  chan string
	behind map[int]string   // commands that go on: dev or other
	served map[int][]string // how members were started that were stopped
}

// newPlace makes a place and starts its shell. run marks all processes that are started there.
func newPlace(dir, run string) (*place, error) {
	p := &place{
		dir:    dir,
		run:    run,
		lines:  make(chan string, 1000),
		behind: map[int]string{},
		served: map[int][]string{},
	}
	if err := p.findPorts(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(dir, ".bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return nil, err
	}
	for _, link := range []string{filepath.Join(bin, "muster"), filepath.Join(dir, "muster")} {
		if err := os.Symlink(self, link); err != nil {
			return nil, err
		}
	}
	p.shell = exec.Command("bash", "--noprofile", "--norc")
	p.shell.Dir = dir
	p.shell.Env = processes.Marked(run, "PATH="+bin+":"+os.Getenv("PATH"))
	p.shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.stdin, err = p.shell.StdinPipe(); err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.shell.Stdout, p.shell.Stderr = in, in
	if err := p.shell.Start(); err != nil {
		return nil, err
	}
	in.Close()
	go func() {
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadString('\n')
			if line != "" {
				p.lines <- strings.TrimSuffix(line, "\n")
			}
			if err != nil {
				close(p.lines)
				return
			}
		}
	}()
	return p, p.tell("set -o pipefail")
}

// nextPorts is where the search for ports goes on; below those of the other tests, which run at the same time.
var (
	portsMu   sync.Mutex
	nextPorts = 12000 + os.Getpid()%59*portsOfPlace
)

func (p *place) findPorts() error {
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 80 {
		base := nextPorts
		if nextPorts += portsOfPlace; nextPorts >= 17900 {
			nextPorts = 12000
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base))
		if err == nil {
			p.hold, p.api, p.raft = l, base+10, base+50
			return nil
		}
	}
	return errors.New("no range of ports is free")
}

// close ends everything that was started here.
func (p *place) close() {
	p.stdin.Close()
	for range 250 {
		left := marked(p.run)
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = p.shell.Wait()
	p.hold.Close()
}

// marked lists the processes of a run.
func marked(run string) (pids []int) {
	mark := []byte(processes.Mark + "=" + run + "\x00")
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range files {
		if env, err := os.ReadFile(name); err == nil && bytes.Contains(env, mark) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

var (
	loopback  = regexp.MustCompile(`127\.0\.0\.1:([57])0(\d\d)\b`)
	elsewhere = regexp.MustCompile(`\b(192\.0\.2|10\.9\.0|10\.0\.0)\.(\d+):([57])000\b`)
	lone      = regexp.MustCompile(`\b(?:192\.0\.2|10\.9\.0|10\.0\.0)\.\d+\b`)
)

// here puts this place's directories and addresses where a document has others.
func (p *place) here(text string, member int) string {
	port := func(kind, offset string) string {
		n, _ := strconv.Atoi(offset)
		if kind == "5" {
			return strconv.Itoa(p.api + n)
		}
		return strconv.Itoa(p.raft + n)
	}
	text = loopback.ReplaceAllStringFunc(text, func(s string) string {
		m := loopback.FindStringSubmatch(s)
		return "127.0.0.1:" + port(m[1], m[2])
	})
	text = elsewhere.ReplaceAllStringFunc(text, func(s string) string {
		m := elsewhere.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[2])
		if m[1] == "10.9.0" { // where members move to
			n += 20
		}
		return "127.0.0.1:" + port(m[3], strconv.Itoa(n-1))
	})
	text = lone.ReplaceAllString(text, "127.0.0.1")
	data := filepath.Join(p.dir, "data", strconv.Itoa(member))
	text = strings.ReplaceAll(text, "/var/lib/muster", data)
	text = strings.ReplaceAll(text, "/etc/muster", filepath.Join(p.dir, "etc"))
	text = strings.ReplaceAll(text, "/srv/", p.dir+"/srv/")
	return regexp.MustCompile(`\bDIR\b`).ReplaceAllString(text, data)
}

var (
	devCommand = regexp.MustCompile(`(make run|(?:\./)?muster dev)\b`)
	goesOnFor  = regexp.MustCompile(`^(\w+=\S+ )*(make run|(\./)?muster (dev|serve|watch)\b|.*muster ` +
		`.*(--follow|--watch)\b|curl -sN )`)
	service  = regexp.MustCompile(`^systemctl (stop|start|restart) muster$`)
	stopping = regexp.MustCompile(`^(stop|kill) ([\d ]+)$`)
)

// do runs one command and returns what it has printed and its exit status. One that goes on by itself is left running
// once it has printed what the document shows; a line "^C" there ends it.
func (p *place) do(s step, member int) (said string, code int, err error) {
	command := regexp.MustCompile(`\bNODE\b`).ReplaceAllString(p.here(s.command, member), strconv.Itoa(member))
	if m := service.FindStringSubmatch(command); m != nil {
		return "", 0, p.service(m[1], member)
	}
	if m := stopping.FindStringSubmatch(command); m != nil {
		signal := map[string]syscall.Signal{"stop": syscall.SIGTERM, "kill": syscall.SIGKILL}[m[1]]
		for n := range strings.FieldsSeq(m[2]) {
			member, _ := strconv.Atoi(n)
			if err := p.stop(member, signal); err != nil {
				return "", 0, err
			}
		}
		return "", 0, nil
	}
	if goesOnFor.MatchString(command) {
		said, err = p.start(s, command, member)
		return said, 0, err
	}
	if questions := strings.Count(strings.Join(s.prints, "\n"), "[y/N] y"); questions > 0 {
		master, terminal, err := openTerminal()
		if err != nil {
			return "", 0, err
		}
		defer master.Close()
		if _, err := master.WriteString(strings.Repeat("y\n", questions)); err != nil {
			return "", 0, err
		}
		return p.ask(command, "<"+terminal)
	}
	return p.ask(command, "</dev/null")
}

// openTerminal makes a terminal on which a command can be answered; name is the file that the command reads.
func openTerminal() (master *os.File, name string, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		return nil, "", err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		master.Close()
		return nil, "", err
	}
	return master, fmt.Sprintf("/dev/pts/%d", n), nil
}

// ask has the shell run a command to its end.
func (p *place) ask(command, input string) (said string, code int, err error) {
	file := filepath.Join(p.dir, ".command")
	if err := os.WriteFile(file, []byte(command+"\n"), 0o600); err != nil {
		return "", 0, err
	}
	const end = "--- end of the command"
	if err := p.tell(". %s %s; printf '\\n%%s %%s\\n' '%s' $?", file, input, end); err != nil {
		return "", 0, err
	}
	limit := time.After(commandLimit)
	var b strings.Builder
	for {
		select {
		case line, ok := <-p.lines:
			if rest, found := strings.CutPrefix(line, end+" "); found {
				code, err := strconv.Atoi(rest)
				return b.String(), code, err
			}
			if !ok {
				return b.String(), 0, errors.New("the shell has ended")
			}
			b.WriteString(strings.TrimSuffix(line, "\r") + "\n")
		case <-limit:
			return b.String(), 0, fmt.Errorf("it has not ended within %v", commandLimit)
		}
	}
}

func (p *place) tell(format string, args ...any) error {
	_, err := fmt.Fprintf(p.stdin, format+"\n", args...)
	return err
}

// start runs a command that does not end by itself.
func (p *place) start(s step, command string, member int) (said string, err error) {
	if m := devCommand.FindString(command); m != "" {
		nth := 0
		for _, c := range p.behind {
			if c == "dev" {
				nth++
			}
		}
		command = strings.Replace(command, m,
			fmt.Sprintf("muster dev --api-port %d --raft-port %d", p.api+10*nth, p.raft+10*nth), 1)
	}
	file := filepath.Join(p.dir, fmt.Sprintf(".behind.%d.log", len(p.behind)))
	text, code, err := p.ask(fmt.Sprintf("set -m\n{ %s\n} >%s 2>&1 </dev/null &\nset +m\necho pid $!", command, file), "")
	if err != nil || code != 0 {
		return text, fmt.Errorf("it could not be started: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[strings.LastIndex(text, "pid ")+4:]))
	if err != nil {
		return text, err
	}
	p.behind[pid] = "other"
	want := s.prints
	if devCommand.MatchString(s.command) {
		p.behind[pid] = "dev"
		want = append(want, "Ctrl-C stops the cluster; …")
	} else if strings.Contains(s.command, "muster serve") {
		want = append(want, "…msg=serving…")
	}
	for i := range want {
		want[i] = p.here(want[i], member)
	}
	for deadline := time.Now().Add(commandLimit); ; time.Sleep(10 * time.Millisecond) {
		printed, _ := os.ReadFile(file)
		if err = missing(want, string(printed)); err == nil || !alive(pid) || time.Now().After(deadline) {
			said = string(printed)
			break
		}
	}
	if err == nil && len(want) > 0 && want[len(want)-1] == "^C" {
		_ = syscall.Kill(-pid, syscall.SIGINT)
		for deadline := time.Now().Add(commandLimit); alive(pid) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if alive(pid) {
			err = errors.New("Ctrl-C does not end it")
		}
	}
	return said, err
}

// service does what systemctl would do to the unit on the machine of a member.
func (p *place) service(verb string, member int) error {
	if verb != "start" {
		if err := p.stop(member, syscall.SIGTERM); err != nil || verb == "stop" {
			return err
		}
	}
	args := p.served[member]
	if args == nil {
		return fmt.Errorf("member %d was not running before", member)
	}
	command := "muster"
	for _, a := range args[1:] {
		command += " '" + a + "'"
	}
	_, err := p.start(step{command: "muster serve"}, command, member)
	return err
}

// stop ends the process of a member and remembers how it was started.
func (p *place) stop(member int, s syscall.Signal) error {
	data := regexp.MustCompile(`(^|/)data/` + strconv.Itoa(member) + `$`)
	for _, pid := range marked(p.run) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		if len(args) < 2 || args[1] != "serve" || !slices.ContainsFunc(args, data.MatchString) {
			continue
		}
		p.served[member] = args
		_ = syscall.Kill(pid, s)
		for deadline := time.Now().Add(commandLimit); alive(pid); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("member %d does not end", member)
			}
		}
		return nil
	}
	return fmt.Errorf("member %d does not run", member)
}

// alive reports whether a process runs, and is none that only waits for its parent.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}
