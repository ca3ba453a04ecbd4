package listeners_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
)

// A tape is a log that can be read while it is written.
type tape struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *tape) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *tape) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// loud gives the host another Set, which logs, and tells of failing programs.
func (h *host) loud() (*tape, chan string) {
	log, failing := new(tape), make(chan string, 10)
	h.set = listeners.NewSet(listeners.SetConfig{
		Loop: h.loop, Log: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Debug}),
		Failing: func(l *listeners.Listener, why string, _ time.Duration) { failing <- l.Name + ": " + why },
	})
	return log, failing
}

// A program that fails ten times in ten seconds is given a rest. Who comes
// meanwhile waits in the kernel.
func TestExecFailing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "program")
	for name, c := range map[string]struct {
		e   *listeners.Exec
		why string
	}{
		"exit status": {shell("exit 3"), "exit status 3"},
		"signal":      {shell("kill -SEGV $$"), "SIGSEGV"},
		"missing":     {&listeners.Exec{Command: []string{missing}}, "there is no program " + missing},
		"passed on":   {&listeners.Exec{Command: []string{"/bin/false"}, PassListener: true}, "exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "epoll", 0)
			log, failing := h.loud()
			l := h.open(spec(t, c.e, "", "tcp://127.0.0.1:0"))
			to := h.addr(l, 0)
			told := ""
			for i := 0; told == ""; i++ {
				conn := dial(t, to)
				if i >= 10 || c.e.PassListener { // it waits, or the next program fails for it
					told = <-failing
				} else if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Fatal(i, err)
				}
				conn.Close()
			}
			if !strings.Contains(told, c.why) || !strings.HasPrefix(told, "test: ") {
				t.Errorf("told %q", told)
			}
			conn := dial(t, to)
			st := h.status(l)
			if st.State != listeners.Limited || !strings.Contains(st.Limit, c.why) {
				t.Errorf("status %+v", st)
			}
			eventually(t, func() bool { return h.status(l).Queue.Accept > 0 }, func() string { return "nobody waits" })
			if n := strings.Count(log.String(), "program failed"); n < 10 {
				t.Errorf("%d failures in the log:\n%s", n, log)
			}
			// Another program is not made to wait for that.
			h.do(func() {
				l.Settle(spec(t, &listeners.Exec{Command: []string{"/bin/echo", "well"}}, "", "tcp://127.0.0.1:0"))
			})
			if got, err := io.ReadAll(conn); string(got) != "well\n" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// Clients cannot make a program fail by going away.
func TestExecClientFails(t *testing.T) {
	h := newHost(t, "epoll", 0)
	_, failing := h.loud()
	l := h.open(spec(t, shell("read x || exit 1"), "", "tcp://127.0.0.1:0"))
	for i := range 30 {
		c := dial(t, h.addr(l, 0)).(*net.TCPConn)
		if i%2 == 0 {
			c.SetLinger(0)
		}
		c.Close()
	}
	eventually(t, func() bool {
		st := h.status(l)
		return st.Active == 0 && st.Stats.Accepted >= 15 && st.Queue.Accept == 0
	}, func() string { return "not over" })
	select {
	case why := <-failing:
		t.Error(why)
	default:
	}
}

// stderr goes to the log, as lines of text.
func TestExecStderr(t *testing.T) {
	h := newHost(t, "epoll", 0)
	log, _ := h.loud()
	l := h.open(spec(t, shell(`printf 'plain\n\033[31mred\r\n\0zero\n' >&2; head -c 3000 /dev/zero >&2; printf '\nno newline' >&2`), "", "tcp://127.0.0.1:0"))
	converse(t, h.addr(l, 0), "")
	eventually(t, func() bool { return strings.Contains(log.String(), "no newline") }, log.String)
	for _, want := range []string{"line=plain\n", `line="?[31mred"`, `line="?zero"`, "line=" + strings.Repeat("?", 1024) + "...\n"} {
		if !strings.Contains(log.String(), want) && !strings.Contains(log.String(), strings.ReplaceAll(strings.TrimSpace(want), `"`, "")) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
	if strings.ContainsAny(log.String(), "\x1b\x00\r") {
		t.Errorf("%q", log)
	}
}

// A program that floods stderr floods no log, and the loop goes on.
func TestExecStderrFlood(t *testing.T) {
	h := newHost(t, "epoll", 0)
	log, _ := h.loud()
	l := h.open(spec(t, shell("yes 'a line of many' | head -c 5000000 >&2; echo done"), "", "tcp://127.0.0.1:0"))
	echo := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	done := make(chan string)
	began := time.Now()
	go func() { done <- converse(t, h.addr(l, 0), "") }()
	c, worst, got := dial(t, h.addr(echo, 0)), time.Duration(0), ""
	for got == "" {
		select {
		case got = <-done:
		default:
			asked := time.Now()
			ask(t, c, []byte("x"))
			worst = max(worst, time.Since(asked))
		}
	}
	took := time.Since(began)
	eventually(t, func() bool { return strings.Contains(log.String(), "program ended") }, log.String)
	lines := strings.Count(log.String(), "line=")
	t.Logf("5 MB in %v: %d lines in the log; an echo beside it takes %v at worst", took, lines, worst)
	if got != "done\n" || float64(lines) > 51+20*time.Since(began).Seconds() || !strings.Contains(log.String(), "were dropped") || worst > time.Second {
		t.Errorf("%q, %d lines in %v, %v", got, lines, took, worst)
	}
}

// What cannot be started closes the connection, and the log says why.
func TestExecMissing(t *testing.T) {
	h := newHost(t, "epoll", 0)
	log, _ := h.loud()
	dir := shortDir(t)
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!"+filepath.Join(dir, "missing")+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, e := range []*listeners.Exec{{Command: []string{filepath.Join(dir, "missing")}}, {Command: []string{script}}, {Command: []string{"/bin/cat"}, User: "who"}} {
		l := h.open(spec(t, e, "", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(l, 0))
		if got, err := io.ReadAll(c); len(got) > 0 || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		eventually(t, func() bool { return strings.Count(log.String(), "program failed") == i+1 }, func() string { return fmt.Sprint(i, log) })
	}
}
