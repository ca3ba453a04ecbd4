//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A deaf client asks and never reads. There are many: it is a descriptor, and no
// more.
type deaf struct {
	fd  int
	say []byte // again and again, for as long as it is taken; nil: nothing
}

// dialDeaf connects with a small receive buffer, which is soon full.
func dialDeaf(t *testing.T, address string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddrPort(address)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10) // it is the daemon's memory that matters
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return fd
}

// speak has each of them say what is taken of it now.
func speak(all []deaf) {
	for _, d := range all {
		for d.say != nil {
			if n, err := unix.SendmsgN(d.fd, d.say, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil || n < len(d.say) {
				break
			}
		}
	}
}

// gushing is an upstream that sends as fast as it can.
func gushing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		data := make([]byte, 64<<10)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				_ = c.(*net.TCPConn).SetWriteBuffer(16 << 10) // it is on the same host, and the daemon's memory is what matters
				for err := error(nil); err == nil; {
					_, err = c.Write(data)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// honest uses an echo listener, by one connection and by new ones, until ctx ends.
func honest(ctx context.Context, address string) (took []time.Duration, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		<-pace.C
		began := time.Now()
		_ = c.SetDeadline(began.Add(patience))
		if _, err := io.WriteString(c, "x"); err != nil {
			return took, err
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return took, err
		}
		if err := echoed("tcp", address, make([]byte, 100), patience); err != nil {
			return took, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

// tcpMemory is what all TCP sockets of the host have in the kernel, in MiB.
func tcpMemory(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		t.Fatal(err)
	}
	var pages int
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, " mem "); ok && strings.HasPrefix(line, "TCP:") {
			_, _ = fmt.Sscan(rest, &pages)
		}
	}
	return pages * os.Getpagesize() >> 20
}

// closedBy is why connections were closed, of all listeners.
func closedBy(ctx context.Context, t *testing.T, v *victim) map[string]uint64 {
	t.Helper()
	stats, err := pb.NewStatsServiceClient(v.conn).GetStats(ctx, &pb.GetStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	total := map[string]uint64{}
	for _, l := range stats.GetSnapshot().GetListeners() {
		for why, n := range l.GetClosed() {
			total[why] += n
		}
	}
	return total
}

// Clients that ask for all they can get and never read, of echo, http, chargen
// and forward: who reads is served, what is kept for the others stays within
// bounds, and they are ended with a reason. READERS=10000 is the long form.
func TestReadersThatNeverRead(t *testing.T) {
	readers, budget := fromEnv(t, "READERS", 200), 256 // MiB
	if readers <= 2000 {
		budget = 16
		t.Setenv("SOCKMGR_WRITE_BUFFER_BYTES", "16MiB")
	}
	const writeTimeout = 6 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	v := startVictim(t, t.TempDir())
	listen := func(name string, h *pb.Handler) string {
		spec := handled(h, "tcp://127.0.0.1:0")
		spec.Options = map[string]*structpb.Value{"write_timeout": structpb.NewStringValue(writeTimeout.String())}
		return serve(ctx, t, v.conn, name, spec)
	}
	good := listen("good", &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}})
	requests := []byte(strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 2000))
	kinds := []struct {
		name, address string
		say           []byte
	}{
		{"echo", listen("echo", &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}), bytes.Repeat([]byte("x"), 64<<10)},
		{"http", listen("http", &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: bytes.Repeat([]byte("x"), 300_000)}}}), requests},
		{"chargen", listen("chargen", &pb.Handler{Kind: &pb.Handler_Chargen{Chargen: &pb.ChargenHandler{}}}), nil},
		{"forward", listen("forward", &pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{Upstreams: []*pb.Upstream{{Address: "tcp://" + gushing(t)}}}}}), nil},
	}
	warm, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	if _, err := honest(warm, good); err != nil {
		t.Fatal(err)
	}
	stop()
	descriptors, memory, kernel := v.descriptors(t), v.resident(t), tcpMemory(t)

	var most, mostKernel atomic.Int64
	var helpers sync.WaitGroup
	defer helpers.Wait()
	busy, stop := context.WithCancel(ctx)
	defer stop()
	helpers.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); busy.Err() == nil; <-tick.C {
			most.Store(max(most.Load(), int64(v.resident(t))))
			mostKernel.Store(max(mostKernel.Load(), int64(tcpMemory(t))))
		}
	})
	var took []time.Duration
	helpers.Go(func() {
		var err error
		if took, err = honest(busy, good); err != nil {
			t.Error("an honest client:", err)
		}
	})
	began := time.Now()
	var all []deaf
	defer func() {
		for _, d := range all {
			_ = unix.Close(d.fd)
		}
	}()
	for i := range readers {
		k := kinds[i%len(kinds)]
		all = append(all, deaf{dialDeaf(t, k.address), k.say})
		if i%100 == 99 {
			speak(all)
		}
	}
	t.Logf("%d readers came in %v", readers, time.Since(began).Round(time.Millisecond))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	why := closedBy(ctx, t, v)
	for ; why["write_timeout"]+why["slow_reader"] < uint64(readers); why = closedBy(ctx, t, v) {
		if <-tick.C; time.Since(began) > 3*patience {
			t.Fatalf("of %d readers were ended: %v", readers, why)
		}
		speak(all)
	}
	ended := time.Since(began)
	stop()
	helpers.Wait()
	t.Logf("ended after %v: %v; honest round trips with a new connection: %d, p50 %v, p99 %v, max %v", ended.Round(time.Millisecond), why,
		len(took), percentile(took, 50), percentile(took, 99), took[len(took)-1])
	until(t, "descriptors are left open", func() bool { return v.descriptors(t) <= descriptors+10 })
	if why["slow_reader"] == 0 {
		t.Error("none was ended because too much was kept")
	}
	if most, bound := int(most.Load()), memory+2*budget+readers*16>>10; most > bound {
		t.Errorf("resident memory: %d MiB, at most %d MiB", most, bound)
	}
	if p := percentile(took, 99); p > 200*time.Millisecond {
		t.Errorf("an honest round trip: p99 %v", p)
	}
	until(t, "nobody is told", func() bool {
		events, err := pb.NewEventServiceClient(v.conn).ListEvents(ctx, &pb.ListEventsRequest{Filter: `type = "listener.slow_readers"`})
		return err == nil && len(events.GetEvents()) >= len(kinds)
	})
	t.Logf("resident memory: %d MiB, at most %d, now %d (the limit of what is kept is %d); in the kernel, of both ends: %d MiB, at most %d",
		memory, most.Load(), v.resident(t), budget, kernel, mostKernel.Load())
}
