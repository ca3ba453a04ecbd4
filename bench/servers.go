package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A contender is a server process and where it serves.
type contender struct {
	name            string
	echo, http, udp netip.AddrPort
	forward, relay  netip.AddrPort // of connections and of datagrams, to a backend
	at              netip.AddrPort // beside peers: where it serves the workload
	proc            *process
	conn            *grpc.ClientConn // to the daemon; nil for the Go net server
	backlog         int              // that listeners were tuned to last
}

func (c *contender) stop() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.proc.stop()
}

const (
	readyTime = 10 * time.Second
	stopTime  = 10 * time.Second
)

// A process is a child on the server's CPU.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	dir    string // removed at the end
	exited chan struct{}
}

// startProcess starts a program and waits for its first line.
func startProcess(cpu int, argv ...string) (*process, string, error) {
	return startProcessTo(os.Stderr, cpu, argv...)
}

func startProcessTo(stderr *os.File, cpu int, argv ...string) (*process, string, error) {
	p, first, err := launch(cpu, stderr, argv...)
	if err != nil {
		return nil, "", err
	}
	timer := time.NewTimer(readyTime)
	defer timer.Stop()
	select {
	case line := <-first:
		if line != "" {
			return p, strings.TrimSpace(line), nil
		}
		err = errors.New("it exited at once")
	case <-timer.C:
		err = fmt.Errorf("it said nothing for %v", readyTime)
	}
	p.stop()
	return nil, "", fmt.Errorf("%s: %w", argv[0], err)
}

// launch starts a program; first gets its first line, or nothing when it ends
// without one.
func launch(cpu int, stderr *os.File, argv ...string) (p *process, first <-chan string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	p = &process{exited: make(chan struct{})}
	p.cmd = exec.Command(self, append([]string{pinCommand, strconv.Itoa(cpu)}, argv...)...)
	// It dies with the thread that started it, which is main's. What it forks is
	// in its group, so that stop ends that too.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.Stderr = stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, nil, err
	}
	line := make(chan string, 1)
	go func() {
		defer close(p.exited)
		r := bufio.NewReader(stdout)
		text, _ := r.ReadString('\n') // at the end of the output: empty
		line <- text
		_, _ = io.Copy(io.Discard, r)
		_ = p.cmd.Wait()
	}()
	return p, line, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process, by force when it does not end by itself.
func (p *process) stop() {
	_ = syscall.Kill(-p.pid(), syscall.SIGTERM)
	_ = p.stdin.Close()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.exited
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}

// startNet starts the Go net server, with a backend's addresses if it shall
// forward.
func startNet(cpus cpuPair, backend ...string) (*contender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, line, err := startProcess(cpus.server, append([]string{self, netServerCommand}, backend...)...)
	if err != nil {
		return nil, err
	}
	c := &contender{name: "go net", proc: p}
	addrs := []*netip.AddrPort{&c.echo, &c.http, &c.udp, &c.forward, &c.relay}
	for i, field := range strings.Fields(line) {
		if *addrs[i], err = netip.ParseAddrPort(field); err != nil {
			p.stop()
			return nil, err
		}
	}
	return c, nil
}

// startDaemon starts a daemon that keeps nothing, without listeners.
func startDaemon(cpus cpuPair, path string) (*contender, error) {
	return startDaemonWith(cpus, path, daemonSetup{})
}

// daemonSetup is what else a daemon is started with.
type daemonSetup struct {
	state  string   // a directory; empty: memory
	flags  []string // after the others
	env    []string // beside ours
	stderr *os.File // nil: ours
}

// startDaemonWith starts one without listeners.
func startDaemonWith(cpus cpuPair, path string, setup daemonSetup) (*contender, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("no daemon (make build makes it): %w", err)
	}
	dir, err := os.MkdirTemp("", "sockmgr-bench-")
	if err != nil {
		return nil, err
	}
	control := "unix://" + filepath.Join(dir, "control.sock")
	argv := append([]string{"env"}, setup.env...)
	argv = append(argv, path, "--control", control, "--state", cmp.Or(setup.state, "memory"), "--log-level", "warn")
	p, _, err := startProcessTo(cmp.Or(setup.stderr, os.Stderr), cpus.server, append(argv, setup.flags...)...)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.dir = dir
	c := &contender{name: "sockmgr", proc: p}
	if c.conn, err = grpc.NewClient(control, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// Handlers of the daemon's listeners.
func echoHandler() *sockmgrv1.Handler {
	return &sockmgrv1.Handler{Kind: &sockmgrv1.Handler_Echo{Echo: &sockmgrv1.EchoHandler{}}}
}

func webHandler() *sockmgrv1.Handler {
	return &sockmgrv1.Handler{Kind: &sockmgrv1.Handler_Http{Http: &sockmgrv1.HttpHandler{
		Headers: map[string]string{"Content-Type": "text/plain; charset=utf-8"},
		Body:    []byte(httpBody),
	}}}
}

func forwardHandler(uri string) *sockmgrv1.Handler {
	return &sockmgrv1.Handler{Kind: &sockmgrv1.Handler_Forward{Forward: &sockmgrv1.ForwardHandler{
		Upstreams: []*sockmgrv1.Upstream{{Address: uri}},
	}}}
}

// openAll opens the three listeners that the Go net server has too.
func (c *contender) openAll(ctx context.Context) error {
	if c.conn == nil {
		return nil
	}
	var err error
	if c.echo, err = c.open(ctx, "echo", "tcp://127.0.0.1:0", echoHandler()); err != nil {
		return err
	}
	if c.http, err = c.open(ctx, "http", "tcp://127.0.0.1:0", webHandler()); err != nil {
		return err
	}
	c.udp, err = c.open(ctx, "udp", "udp://127.0.0.1:0", echoHandler())
	return err
}

// open opens one listener and returns where it is bound.
func (c *contender) open(ctx context.Context, id, uri string, h *sockmgrv1.Handler) (netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	answer, err := sockmgrv1.NewListenerServiceClient(c.conn).CreateListener(ctx, &sockmgrv1.CreateListenerRequest{
		ListenerId: id,
		Listener:   &sockmgrv1.Listener{Spec: &sockmgrv1.ListenerSpec{Listen: []string{uri}, Handler: h}},
	})
	if err != nil {
		return netip.AddrPort{}, err
	}
	status := answer.GetListener().GetStatus()
	if len(status.GetBound()) != 1 {
		return netip.AddrPort{}, fmt.Errorf("%s is %v, not bound: %s", id, status.GetState(), status.GetMessage())
	}
	bound := status.GetBound()[0]
	ip, err := netip.ParseAddr(bound.GetIp())
	return netip.AddrPortFrom(ip, uint16(bound.GetPort())), err
}
