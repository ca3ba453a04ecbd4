//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// upgrade upgrades the daemon and returns what it said.
func upgrade(ctx context.Context, conn *grpc.ClientConn, r *pb.UpgradeRequest) (all []*pb.UpgradeResponse, err error) {
	stream, err := pb.NewDaemonServiceClient(conn).Upgrade(ctx, r)
	for err == nil {
		var m *pb.UpgradeResponse
		if m, err = stream.Recv(); err == nil {
			all = append(all, m)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, err
}

// alone starts a daemon without a supervisor, as one that is supervised is used.
func alone(t *testing.T, dir string, flags ...string) *supervised {
	t.Helper()
	return start(t, dir, append([]string{"--control", "unix://" + dir + "/c", "--state", dir + "/state", "--log-level", "info"}, flags...)...)
}

// echoUpstream is a server that echoes.
func echoUpstream(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return "tcp://" + l.Addr().String()
}

func handled(h *pb.Handler, uris ...string) *pb.ListenerSpec {
	return &pb.ListenerSpec{Handler: h, DesiredState: pb.ListenerSpec_DESIRED_STATE_RUNNING, Listen: uris}
}

// serve makes a listener and returns its address.
func serve(ctx context.Context, t *testing.T, conn *grpc.ClientConn, name string, spec *pb.ListenerSpec) string {
	t.Helper()
	l, err := pb.NewListenerServiceClient(conn).CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: name, Listener: &pb.Listener{Spec: spec}})
	if err != nil {
		t.Fatal(err)
	}
	_, address, _ := strings.Cut(l.GetListener().GetStatus().GetBound()[0].GetUri(), "://")
	return address
}

// Upgrades under load lose nothing: no connection, no byte, no datagram, no
// connect, and the state. UPGRADES=100 UPGRADE_CONNECTIONS=10000
// UPGRADE_FORWARDS=100 is the long form, with UPGRADE_RATE=1000000 for bytes a second
// on each of them: else they go as fast as they can, and all wait for a processor.
func TestUpgradeUnderLoad(t *testing.T) {
	for name, start := range map[string]func(*testing.T, string, ...string) *supervised{"alone": alone, "supervised": supervise} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := start(t, dir)
			conn := s.api(t)
			ctx := t.Context()
			pid := daemonPid(ctx, t, conn)
			up := echoUpstream(t)
			echo := serve(ctx, t, conn, "echo", handled(&pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, "tcp://127.0.0.1:0"))
			udp := serve(ctx, t, conn, "udp", handled(&pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, "udp://127.0.0.1:0"))
			web := serve(ctx, t, conn, "web", handled(&pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Status: 200, Body: []byte("Hello, World")}}}, "tcp://127.0.0.1:0"))
			forward := serve(ctx, t, conn, "forward", handled(&pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{Upstreams: []*pb.Upstream{{Address: up}}}}}, "tcp://127.0.0.1:0"))

			c := newCrowd(t)
			n := fromEnv(t, "UPGRADE_CONNECTIONS", 300)
			c.ping("tcp", echo, n, max(time.Second, time.Duration(n)*time.Millisecond/2))
			c.ping("udp", udp, 4, 5*time.Millisecond)
			c.stream(forward, fromEnv(t, "UPGRADE_FORWARDS", 10), fromEnv(t, "UPGRADE_RATE", 0))
			c.connect(echo, 5*time.Millisecond)
			c.get(web)
			p := startProbe(t, echo, max(5, min(50, n/100)))
			quiet := p.longestIn(time.Second)
			var stalls []time.Duration
			for range fromEnv(t, "UPGRADES", 5) {
				p.longest()
				all, err := upgrade(ctx, conn, &pb.UpgradeRequest{})
				if err != nil {
					t.Fatal(err)
				}
				last := all[len(all)-1]
				if last.GetPhase() != pb.UpgradeResponse_PHASE_DONE {
					t.Fatalf("%v", all)
				}
				now := daemonPid(ctx, t, conn)
				if now == pid || now != int(last.GetPid()) {
					t.Errorf("pid %d, was %d; the upgrade says %d", now, pid, last.GetPid())
				}
				pid = now
				more := c.pings.Load() + 100
				waitFor(t, func() bool { return c.pings.Load() > more || c.failed.Load() > 0 })
				stalls = append(stalls, p.longest())
			}
			c.end()
			p.end()
			t.Logf("%s: %d connections, %d forwards: %d echoes, %d MiB; the longest round trip of a client in a second without an upgrade: %v; in each upgrade: p50 %v, p90 %v, p99 %v, most %v", name,
				n, fromEnv(t, "UPGRADE_FORWARDS", 10), c.pings.Load(), c.bytes.Load()>>20, quiet,
				percentile(stalls, 50), percentile(stalls, 90), percentile(stalls, 99), percentile(stalls, 100))
			if name == "supervised" { // and what is kept is kept still
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				again := c.dial("tcp", echo)
				defer again.Close()
				_, _ = again.Write([]byte("x"))
				if _, err := io.ReadFull(again, make([]byte, 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// waitFor waits for what others do in their own time.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(60 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}
