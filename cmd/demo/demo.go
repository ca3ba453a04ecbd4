package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// config is what a run of the demo is told.
type config struct {
	out  io.Writer
	bin  string // directory of sockmgr and sockctl
	port string // of the HTTP listener; empty is 8080, 0 lets the kernel choose
	stay bool   // someone watches: go on until a signal
}

// demo is one run.
type demo struct {
	config
	dir     string // of its own, removed at the end
	control string // address of the daemon
	daemon  *daemon
	web     listener
	echoes  []listener // one of TCP, one of UDP
}

// patience bounds each step; all of them take milliseconds.
const patience = 30 * time.Second

// errInterrupted is a signal before the end of the last step.
var errInterrupted = errors.New("interrupted")

// run returns the exit code: 0 when all went well, 130 for a signal that came
// in between, 1 for all else.
func run(ctx context.Context, c config) int {
	// The daemon is told to end when the thread that started it does
	// (PR_SET_PDEATHSIG), so this thread has to last as long as the demo.
	runtime.LockOSThread()
	d := &demo{config: c}
	err := d.show(ctx)
	if errEnd := d.end(); errEnd != nil {
		d.say("\ndemo: not all could be taken away: %v", errEnd)
		err = errors.Join(err, errEnd)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted):
		d.say("\ndemo: interrupted")
		return 130
	}
	d.say("\ndemo: failed: %v", err)
	return 1
}

// show runs all steps, and stays if someone watches.
func (d *demo) show(ctx context.Context) error {
	steps := []func(context.Context) error{d.prepare, d.startDaemon, d.open, d.talk, d.tune, d.look}
	for _, step := range steps {
		bounded, cancel := context.WithTimeout(ctx, patience)
		err := step(bounded)
		cancel()
		if ctx.Err() != nil {
			return errInterrupted
		}
		if err != nil {
			return err
		}
	}
	return d.goOn(ctx)
}

// prepare checks what can be checked, and makes the directory.
func (d *demo) prepare(context.Context) (err error) {
	if d.port == "" {
		d.port = "8080"
	}
	if _, err := strconv.ParseUint(d.port, 10, 16); err != nil {
		return fmt.Errorf("DEMO_PORT=%s is not a port: want a number from 0 to 65535, for example make demo DEMO_PORT=8081", d.port)
	}
	if d.bin, err = filepath.Abs(d.bin); err != nil {
		return err
	}
	for _, program := range []string{"sockmgr", "sockctl"} {
		if _, err := os.Stat(filepath.Join(d.bin, program)); err != nil {
			return fmt.Errorf("there is no %s in %s: make build puts it there", program, d.bin)
		}
	}
	parent := os.TempDir()
	if len(parent) > 60 { // the path of a Unix socket has at most 107 bytes
		parent = "/tmp"
	}
	if d.dir, err = os.MkdirTemp(parent, "sockmgr-demo-"); err != nil {
		return err
	}
	d.control = "unix://" + d.dir + "/control.sock"
	return nil
}

// end takes everything away.
func (d *demo) end() error {
	err := d.daemon.stop()
	if d.dir != "" {
		err = errors.Join(err, os.RemoveAll(d.dir))
	}
	return err
}

// say writes a line. A reader that went away is no reason to leave a daemon
// behind.
func (d *demo) say(format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, format+"\n", args...)
}

// title begins a part.
func (d *demo) title(format string, args ...any) { d.say("\n# "+format, args...) }

// goOn says how to go on, and on a terminal waits until that is over.
func (d *demo) goOn(ctx context.Context) error {
	root, name := filepath.Split(d.bin)
	if !d.stay {
		d.title("There is no terminal to stay on, so the demo ends here and takes all of it away.")
		d.say("To go on by hand, from %s:", filepath.Clean(root))
		d.say("  export PATH=$PWD/%s:$PATH SOCKMGR_ADDR=unix:///tmp/try/control.sock", name)
		d.say("  sockmgr --control $SOCKMGR_ADDR --state /tmp/try/state &")
		d.say("  sockctl start web --listen tcp://127.0.0.1:8080 --handler http --body 'Hello, World'")
		d.say("  curl http://127.0.0.1:8080/")
		return nil
	}
	d.title("All of it runs until you press Ctrl-C here. In another terminal, from %s:", filepath.Clean(root))
	d.say("  export PATH=$PWD/%s:$PATH SOCKMGR_ADDR=%s", name, d.control)
	d.say("  curl %s", d.web.url())
	d.say("  sockctl ls")
	d.say("  sockctl tune web idle_timeout=30s tcp.keepalive=true")
	d.say("  sockctl start hello --listen tcp://127.0.0.1:0 --handler reply --data 'Hello'")
	d.say("  sockctl conn ls; sockctl options; sockctl --help")
	select {
	case <-ctx.Done():
		d.say("\ndemo: ended; the daemon is stopped and %s removed", d.dir)
		return nil
	case <-d.daemon.ended:
		if d.daemon.err == nil {
			d.say("\ndemo: someone shut the daemon down; that is the end")
			return nil
		}
		return fmt.Errorf("the daemon ended by itself: %w\n%s", d.daemon.err, d.daemon.lastWords())
	}
}
