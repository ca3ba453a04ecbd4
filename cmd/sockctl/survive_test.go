//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// fromEnv is a number that turns a short test into a long one.
func fromEnv(t *testing.T, name string, short int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%s: %v", name, text, err)
	}
	return n
}

// supervised is a supervisor, and the daemon that it has now.
type supervised struct {
	dir   string
	cmd   *exec.Cmd
	lines chan string // that the daemons print when they are ready
	log   *os.File
}

// supervise starts sockmgr supervise in dir.
func supervise(t *testing.T, dir string, flags ...string) *supervised {
	t.Helper()
	return start(t, dir, append([]string{"supervise", "--control", "unix://" + dir + "/c", "--state", dir + "/state", "--log-level", "warn"}, flags...)...)
}

// start starts sockmgr, with its log in dir.
func start(t *testing.T, dir string, args ...string) *supervised {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s := &supervised{dir: dir, log: log, lines: make(chan string, 64)}
	s.cmd = exec.Command("sockmgr", args...)
	out := &firstLine{ready: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = io.MultiWriter(out, lineWriter(s.lines)), log
	s.cmd.WaitDelay = time.Second // the daemon has its stdout too
	s.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		_ = s.cmd.Process.Signal(syscall.SIGCONT) // a test that failed may have stopped it
		_ = s.cmd.Wait()
		_ = log.Close()
		text, _ := os.ReadFile(log.Name())
		for _, word := range []string{"DATA RACE", "panic", "goroutine "} {
			if bytes.Contains(text, []byte(word)) || t.Failed() {
				t.Errorf("logged:\n%s", text)
				break
			}
		}
	})
	return s
}

type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	select {
	case w <- string(p):
	default:
	}
	return len(p), nil
}

// api calls the daemon that is there, whichever.
func (s *supervised) api(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+s.dir+"/c", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// daemonPid asks the daemon for its pid; the next one, if one was killed that the
// question was sent to.
func daemonPid(ctx context.Context, t *testing.T, conn *grpc.ClientConn) int {
	t.Helper()
	info, err := pb.NewDaemonServiceClient(conn).GetDaemonInfo(ctx, &pb.GetDaemonInfoRequest{})
	for status.Code(err) == codes.Unavailable {
		info, err = pb.NewDaemonServiceClient(conn).GetDaemonInfo(ctx, &pb.GetDaemonInfoRequest{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return int(info.GetInfo().GetPid())
}

// makeListener makes an echo listener and returns its addresses.
func makeListener(ctx context.Context, t *testing.T, conn *grpc.ClientConn, name string, desired pb.ListenerSpec_DesiredState, uris ...string) []string {
	t.Helper()
	spec := &pb.ListenerSpec{Handler: &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, DesiredState: desired, Listen: uris}
	l, err := pb.NewListenerServiceClient(conn).CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: name, Listener: &pb.Listener{Spec: spec}})
	if err != nil {
		t.Fatal(err)
	}
	var bound []string
	for _, a := range l.GetListener().GetStatus().GetBound() {
		_, address, _ := strings.Cut(a.GetUri(), "://")
		bound = append(bound, address)
	}
	return bound
}

// encounters counts what clients met.
type encounters struct {
	connects, echoed, failed, lost atomic.Int64

	mu  sync.Mutex
	why map[string]int
}

func (c *encounters) fail(err error) {
	c.failed.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.why = map[string]int{}
	}
	c.why[err.Error()]++
}

// clients come as many a second, whoever still waits.
func (c *encounters) clients(ctx context.Context, addresses []string, rate int) {
	var all sync.WaitGroup
	defer all.Wait()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	began, came := time.Now(), 0
	for ctx.Err() == nil {
		<-pace.C
		for due := int(time.Since(began).Seconds() * float64(rate)); came < due; came++ {
			address := addresses[came*7%len(addresses)]
			all.Go(func() { c.client(address) })
		}
	}
}

// client connects, and has a byte echoed. A connection that the kernel has not made
// is a failure; one that ends before the echo was accepted by a daemon that was
// killed then.
func (c *encounters) client(address string) {
	c.connects.Add(1)
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		c.fail(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = conn.Write([]byte{'x'})
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 1))
	}
	var timeout net.Error
	switch {
	case err == nil:
		c.echoed.Add(1)
	case errors.As(err, &timeout) && timeout.Timeout():
		c.fail(err)
	default:
		c.lost.Add(1)
	}
}

// datagrams sends on one socket, which hears if nobody has the port.
func (c *encounters) datagrams(ctx context.Context, address string) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		c.fail(err)
		return
	}
	defer conn.Close()
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		<-pace.C
		c.connects.Add(1)
		if _, err := conn.Write([]byte{'x'}); err != nil {
			c.fail(err)
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		switch _, err := conn.Read(make([]byte, 8)); {
		case err == nil:
			c.echoed.Add(1)
		case errors.Is(err, syscall.ECONNREFUSED):
			c.fail(err)
		}
	}
}

// kill -9 at any moment: no client is refused, none waits for nobody, and what
// waits in a queue goes on to wait there. SURVIVE_KILLS=1000
// SURVIVE_LISTENERS=1000 SURVIVE_RATE=1000 (new connections a second) is the long form.
func TestKillRefusesNobody(t *testing.T) {
	kills, count, rate := fromEnv(t, "SURVIVE_KILLS", 20), fromEnv(t, "SURVIVE_LISTENERS", 100), fromEnv(t, "SURVIVE_RATE", 200)
	s := supervise(t, t.TempDir())
	conn := s.api(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience+time.Duration(kills)*5*time.Second)
	defer cancel()
	var tcp []string
	for i := range count {
		tcp = append(tcp, makeListener(ctx, t, conn, fmt.Sprintf("l%d", i), 0, "tcp://127.0.0.1:0")...)
	}
	udp := makeListener(ctx, t, conn, "udp", 0, "udp://127.0.0.1:0")[0]
	held := makeListener(ctx, t, conn, "held", pb.ListenerSpec_DESIRED_STATE_PAUSED, "tcp://127.0.0.1:0")[0]

	var streams, packets encounters
	var clients sync.WaitGroup
	busy, stop := context.WithCancel(ctx)
	defer stop()
	since := time.Now()
	clients.Go(func() { streams.clients(busy, tcp, rate) })
	clients.Go(func() { packets.datagrams(busy, udp) })
	var waiting []net.Conn
	var gaps []time.Duration
	for i := range kills {
		if i%max(1, kills/10) == 0 {
			waiting = append(waiting, ask(t, held))
		}
		pid := daemonPid(ctx, t, conn)
		began := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		gaps = append(gaps, gap(t, began, tcp[i*len(tcp)/kills]))
	}
	seconds := time.Since(since).Seconds()
	stop()
	clients.Wait()
	if _, err := pb.NewListenerServiceClient(conn).ResumeListener(ctx, &pb.ResumeListenerRequest{Name: "held"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range waiting {
		answered(t, c)
	}
	t.Logf("%d kills, %d listeners: gap p50 %v p99 %v max %v", kills, count, percentile(gaps, 50), percentile(gaps, 99), percentile(gaps, 100))
	t.Logf("tcp: %d connects (%.0f a second), %d echoed, %d failed, %d accepted and then lost; %d waited in the queue of a paused listener through the kills",
		streams.connects.Load(), float64(streams.connects.Load())/seconds, streams.echoed.Load(), streams.failed.Load(), streams.lost.Load(), len(waiting))
	t.Logf("udp: %d datagrams, %d echoed, %d refused", packets.connects.Load(), packets.echoed.Load(), packets.failed.Load())
	if streams.failed.Load()+packets.failed.Load() > 0 {
		t.Errorf("clients failed: %v %v", streams.why, packets.why)
	}
	if lost := streams.lost.Load(); lost > int64(max(5, rate/20)*kills) { // who came in the 50 ms before each kill
		t.Errorf("%d connections were lost", lost)
	}
}

// ask connects and sends a byte, which nobody reads yet.
func ask(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Write([]byte{'x'}); err != nil {
		t.Fatal(err)
	}
	return c
}

func answered(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error("a connection that waited in the queue:", err)
	}
}

// gap is the time until a client is served that comes right after a kill.
func gap(t *testing.T, began time.Time, address string) time.Duration {
	t.Helper()
	for {
		c, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			t.Fatal("after a kill:", err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = c.Write([]byte{'x'})
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		_ = c.Close()
		if err == nil {
			return time.Since(began)
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatal("after a kill nobody serves:", err)
		} // the daemon had accepted it before the signal came
	}
}
