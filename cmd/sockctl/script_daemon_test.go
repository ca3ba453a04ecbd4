//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// process is a program that runs beside the script.
type process struct {
	cmd  *exec.Cmd
	log  string // where its stderr goes
	done chan struct{}
	err  error // of Wait; set before done is closed
}

// firstLine is a stdout that tells when a line has come.
type firstLine struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (f *firstLine) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes.IndexByte(p, '\n') >= 0 {
		defer f.once.Do(func() { close(f.ready) })
	}
	return f.text.Write(p)
}

func (f *firstLine) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.String()
}

// passedOn are the variables of a script that a daemon may want to see.
var passedOn = []string{
	"PATH", "HOME", "TMPDIR", "GORACE", "SOCKMGR_CONTROL", "SOCKMGR_STATE", "SOCKMGR_POLLER", "SOCKMGR_LOOPS", "SOCKMGR_CONFIG", "SOCKMGR_EXEC_ALLOW",
	"SOCKMGR_LOG_LEVEL", "SOCKMGR_LOG_FORMAT", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "NOTIFY_SOCKET",
}

func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: daemon NAME COMMAND...")
	}
	name := args[0]
	p := &process{cmd: exec.Command(args[1], args[2:]...), log: ts.MkAbs(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer log.Close()
	for _, variable := range passedOn {
		if value := ts.Getenv(variable); value != "" {
			p.cmd.Env = append(p.cmd.Env, variable+"="+value)
		}
	}
	out := &firstLine{ready: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), out, log
	ts.Check(p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	worldOf(ts).daemons[name] = p
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-out.ready:
	case <-p.done:
		delete(worldOf(ts).daemons, name)
		ts.Fatalf("%s ended before it was ready: %v\n%s%s", name, p.err, out, ts.ReadFile(p.log))
	case <-timer.C:
		ts.Fatalf("%s is not ready", name)
	}
	if !strings.HasPrefix(out.String(), "sockmgr: ready on unix://") {
		ts.Fatalf("%s says %q", name, out)
	}
	ts.Setenv(name, strconv.Itoa(p.cmd.Process.Pid))
}

// stop sends a signal, none if it is nil, and waits for the end.
func (p *process) stop(s os.Signal) error {
	if s != nil {
		if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return errors.Join(errors.New("does not end"), p.cmd.Process.Kill())
	}
}

// fault says what was wrong with a process that has ended.
func (p *process) fault() error {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	if code := exitCode(p.err); code != 0 && !p.killed() {
		return fmt.Errorf("ended with %d:\n%s", code, log)
	}
	for _, word := range []string{"DATA RACE", "panic", "goroutine "} {
		if bytes.Contains(log, []byte(word)) {
			return fmt.Errorf("logged:\n%s", log)
		}
	}
	return nil
}

func (p *process) killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

var signals = map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": os.Interrupt, "KILL": os.Kill}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 2 || len(args) == 2 && signals[args[1]] == nil {
		ts.Fatalf("usage: end NAME [TERM|INT|KILL]")
	}
	p := worldOf(ts).daemons[args[0]]
	if p == nil {
		ts.Fatalf("no daemon is called %s", args[0])
	}
	var s os.Signal
	if len(args) == 2 {
		s = signals[args[1]]
	}
	delete(worldOf(ts).daemons, args[0])
	ts.Check(errors.Join(p.stop(s), p.fault()))
	if p.killed() != (s == os.Kill) {
		ts.Fatalf("%s ended otherwise: %v", args[0], p.err)
	}
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || signals[args[1]] == nil || worldOf(ts).daemons[args[0]] == nil {
		ts.Fatalf("usage: signal NAME TERM|INT")
	}
	ts.Check(worldOf(ts).daemons[args[0]].cmd.Process.Signal(signals[args[1]]))
}

// cmdInterrupt presses Ctrl-C on a client that waits for the daemon.
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: interrupt COMMAND...")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	for _, variable := range append(passedOn, "SOCKMGR_ADDR") {
		cmd.Env = append(cmd.Env, variable+"="+ts.Getenv(variable))
	}
	ts.Check(cmd.Start())
	// Its socket is the event; there is no other way to hear of it.
	for end := time.Now().Add(patience); !hasSocket(cmd.Process.Pid) && time.Now().Before(end); {
		runtime.Gosched()
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if code := exitCode(cmd.Wait()); code != 130 {
		ts.Fatalf("interrupted, it ended with %d, not 130", code)
	}
}

func hasSocket(pid int) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is well-formed
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:") {
			return true
		}
	}
	return false
}
