package docs

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// session is a shell that runs the commands of one page.
type session struct {
	t        *testing.T
	in       io.Writer
	out      chan string // what it printed, piece by piece
	printed  strings.Builder
	status   int
	there    *strings.Replacer // what the page says, as it is here
	andBack  *strings.Replacer
	commands int
	dir      string
}

// shell runs files whose names it reads from descriptor 3, keeps $? from one to
// the next, and prints a mark and $? after each.
const shell = `while read -r -u 9 file; do (exit $status); . "$file" </dev/null; status=$?; printf '\1%s\1' $status; done`

func begin(t *testing.T, all []command) *session {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "docs-") //nolint:usetesting // short: the path of a Unix socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	names, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, in: in, out: make(chan string), dir: dir}
	s.replace(all)
	cmd := exec.Command("bash", "--norc", "--noprofile", "-c", "exec 9<&3 3<&-; "+shell)
	cmd.Dir = ".."
	cmd.ExtraFiles = []*os.File{names}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "NO_COLOR=1", "GORACE=atexit_sleep_ms=0",
		"SOCKMGR_CONTROL=unix://"+dir+"/default.sock", "SOCKMGR_STATE="+dir+"/default", "SOCKMGR_ADDR=unix://"+dir+"/default.sock")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	names.Close()
	go s.read(out)
	t.Cleanup(func() {
		in.Close()
		// The group is the shell and all it has started. A supervisor ends its
		// daemon, which has another group, if it is asked to.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		last := time.AfterFunc(10*time.Second, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer last.Stop()
		for range s.out { // ends when the last of them has
		}
		cmd.Wait()
		os.RemoveAll(dir)
	})
	return s
}

// read hands on what the shell prints.
func (s *session) read(out io.Reader) {
	defer close(s.out)
	for r := bufio.NewReader(out); ; {
		buf := make([]byte, 64<<10)
		n, err := r.Read(buf)
		if n > 0 {
			s.out <- string(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

var portInCommand = regexp.MustCompile(`[:/](\d{4,5})\b`)

// replace makes the replacers of this run.
func (s *session) replace(all []command) {
	s.t.Helper()
	ports := map[string]string{}
	for _, c := range all {
		for _, m := range portInCommand.FindAllStringSubmatch(c.line, -1) {
			if ports[m[1]] == "" {
				ports[m[1]] = freePort(s.t)
			}
		}
	}
	there := []string{shownDir, s.dir}
	back := []string{s.dir + "/default.sock", shownControl, s.dir + "/default", shownState, s.dir, shownDir}
	for _, shown := range slices.Sorted(maps.Keys(ports)) {
		for _, before := range []string{":", "/"} {
			there = append(there, before+shown, before+ports[shown])
			back = append(back, before+ports[shown], before+shown)
		}
	}
	s.there, s.andBack = strings.NewReplacer(there...), strings.NewReplacer(back...)
}

// lastPort is the last that freePort has looked at.
var lastPort atomic.Int32

// freePort is free for TCP and UDP, below those that the kernel gives to
// whoever asks for port 0, and given out once.
func freePort(t *testing.T) string {
	t.Helper()
	lastPort.CompareAndSwap(0, int32(20000+os.Getpid()%10000))
	for {
		port := lastPort.Add(1)
		if port >= 32700 {
			t.Fatal("no free port")
		}
		address := fmt.Sprintf(":%d", port)
		l, errTCP := net.Listen("tcp", address)
		if errTCP == nil {
			l.Close()
		}
		p, errUDP := net.ListenPacket("udp", address)
		if errUDP == nil {
			p.Close()
		}
		if errTCP == nil && errUDP == nil {
			return strings.TrimPrefix(address, ":")
		}
	}
}

// run runs one command and compares.
func (s *session) run(c command, mayFail bool) (ok bool) {
	s.t.Helper()
	s.commands++
	file := filepath.Join(s.dir, fmt.Sprintf("command-%d", s.commands))
	if err := os.WriteFile(file, []byte(s.there.Replace(c.line)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintln(s.in, file); err != nil {
		s.t.Fatal(err)
	}
	want := pattern(c.want)
	matches := func() bool { return want.MatchString(plain(s.andBack.Replace(s.printed.String()))) }
	s.printed.Reset()
	inBackground := strings.HasSuffix(strings.TrimSpace(c.line), "&")
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for marked := false; !marked || inBackground && !matches(); {
		select {
		case text, open := <-s.out:
			if !open {
				s.t.Fatalf("%s: $ %sthe shell ended", c.at, c.line)
			}
			marked = s.take(text) || marked
		case <-timer.C:
			s.t.Errorf("%s: $ %snot done after %v; printed so far:\n%s", c.at, c.line, patience, s.printed.String())
			return false
		}
	}
	if s.status != 0 && !mayFail {
		s.t.Errorf("%s: $ %sexit %d:\n%s", c.at, c.line, s.status, s.printed.String())
		return false
	}
	if !matches() {
		s.t.Errorf("%s: $ %s--- the page says\n%s--- it is\n%s", c.at, c.line, c.want, s.andBack.Replace(s.printed.String()))
		return false
	}
	return true
}

var marked = regexp.MustCompile("\x01(\\d+)\x01")

// take adds what was printed. It reports whether that was the end.
func (s *session) take(text string) bool {
	s.printed.WriteString(text)
	m := marked.FindStringSubmatch(s.printed.String())
	if m == nil {
		return false
	}
	rest := strings.Replace(s.printed.String(), m[0], "", 1)
	s.printed.Reset()
	s.printed.WriteString(rest)
	s.status, _ = strconv.Atoi(m[1])
	return true
}
