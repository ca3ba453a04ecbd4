package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// daemon is the sockmgr that the demo has started.
type daemon struct {
	cmd   *exec.Cmd
	log   string        // file with what it said on stderr
	ended chan struct{} // closed when it has
	err   error         // how; set before
}

// startDaemon returns when the daemon says that it is ready.
func (d *demo) startDaemon(ctx context.Context) error {
	d.title("A daemon of its own. All it has is in %s.", d.dir)
	args := []string{"--control", d.control, "--state", d.dir + "/state"}
	d.say("$ sockmgr %s", words(args))
	log, err := os.Create(filepath.Join(d.dir, "sockmgr.log"))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the daemon has a descriptor of its own
	cmd := exec.Command(filepath.Join(d.bin, "sockmgr"), args...)
	cmd.Env = environment()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // a Ctrl-C is for the demo, which ends the daemon in order
		Pdeathsig: syscall.SIGTERM,
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.daemon = &daemon{cmd: cmd, log: log.Name(), ended: make(chan struct{})}
	ready := make(chan string, 1)
	go d.daemon.follow(stdout, ready)
	select {
	case line, ok := <-ready:
		if !ok {
			<-d.daemon.ended
			return fmt.Errorf("sockmgr does not start: %w\n%s", d.daemon.err, d.daemon.lastWords())
		}
		d.say("%s", line)
		d.say("$ export SOCKMGR_ADDR=%s", d.control)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sockmgr is not ready after %v\n%s", patience, d.daemon.lastWords())
	}
}

// follow hands on the first line, reads the rest and waits for the end.
func (m *daemon) follow(stdout io.Reader, ready chan<- string) {
	lines := bufio.NewScanner(stdout)
	if lines.Scan() {
		ready <- lines.Text()
	}
	close(ready)
	_, _ = io.Copy(io.Discard, stdout) // until it ends
	m.err = m.cmd.Wait()
	close(m.ended)
}

// stop ends the daemon and waits until it has ended. None is fine.
func (m *daemon) stop() error {
	if m == nil {
		return nil
	}
	select {
	case <-m.ended: // already: whoever waited for it has said so
		return nil
	default:
	}
	// The second signal says: do not wait for open connections.
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-m.ended:
	case <-timer.C:
		_ = m.cmd.Process.Kill()
		<-m.ended
		return fmt.Errorf("sockmgr did not end within %v of SIGTERM and was killed", patience)
	}
	if m.err != nil {
		return fmt.Errorf("sockmgr did not end well: %w\n%s", m.err, m.lastWords())
	}
	return nil
}

// lastWords is the end of the daemon's log.
func (m *daemon) lastWords() string {
	text, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// environment is ours without what would change what the programs do.
func environment() []string {
	var env []string
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "SOCKMGR_") && !strings.HasPrefix(pair, "NOTIFY_SOCKET=") {
			env = append(env, pair)
		}
	}
	return env
}
