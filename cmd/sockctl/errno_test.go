//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// errnos are what the kernel may answer to a system call of the daemon's. What
// stands before the bar is tried always, the rest with ERRNO_MATRIX=all. What
// Go's own runtime ends at is not among them (clone, mmap without memory), nor
// what strace would leave undone for ever (shutdown).
var errnos = []struct{ call, errors string }{
	{"accept4", "EMFILE ENOMEM ECONNABORTED | ENFILE ENOBUFS EINTR EPROTO EPERM ENETDOWN EHOSTUNREACH EAGAIN"},
	{"recvfrom", "ENOMEM | EINTR EIO ECONNRESET ETIMEDOUT EAGAIN"},
	{"sendto", "ENOMEM EPERM | ENOBUFS EINTR EAGAIN EIO"},
	{"read", "EIO | EINTR EAGAIN ECONNRESET ENOMEM"},
	{"write", "EAGAIN | EINTR ENOMEM ENOBUFS EPIPE ENOSPC"},
	{"recvmsg", "ENOMEM | EINTR ECONNREFUSED EAGAIN"},
	{"recvmmsg", "ENOMEM | EINTR ECONNREFUSED EAGAIN"},
	{"sendmmsg", "ENOBUFS | EPERM EINTR ENOMEM EAGAIN ENETUNREACH"},
	{"epoll_ctl", "ENOMEM | ENOSPC"},
	{"socket", "EMFILE | ENFILE ENOBUFS ENOMEM EACCES EAFNOSUPPORT"},
	{"bind", "| EADDRINUSE EADDRNOTAVAIL ENOMEM EACCES"},
	{"listen", "| EADDRINUSE"},
	{"connect", "EADDRNOTAVAIL | EAGAIN ECONNREFUSED ENETUNREACH ETIMEDOUT EPERM EINTR"},
	{"getsockopt", "ENOBUFS | ENOMEM EINVAL"},
	{"setsockopt", "| ENOMEM ENOBUFS EPERM"},
	{"getsockname", "| ENOBUFS"},
	{"close", "EIO | EINTR"},
	{"splice", "EINVAL | ENOMEM EAGAIN"},
	{"pipe2", "EMFILE | ENFILE"},
	{"fcntl", "| EMFILE"},
	{"openat", "| EMFILE ENFILE EACCES ENOMEM"},
	{"fstat", "| ENOMEM"},
	{"unlinkat", "| EIO EROFS"},
}

// A bench is a daemon with one listener of each sort, and clients of them.
type bench struct {
	*victim
	tcp []string
	udp string
	bad atomic.Int64 // exchanges that failed
	ok  atomic.Int64
}

func newBench(ctx context.Context, t *testing.T) *bench {
	t.Helper()
	b := &bench{victim: startVictim(t, t.TempDir())}
	b.tcp = makeListener(ctx, t, b.conn, "echo", 0, "tcp://127.0.0.1:0")
	b.udp = makeListener(ctx, t, b.conn, "udp", 0, "udp://127.0.0.1:0")[0]
	spec := &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{
		Upstreams: []*pb.Upstream{{Address: "tcp://" + b.tcp[0]}},
	}}}}
	l, err := pb.NewListenerServiceClient(b.conn).CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: "forward", Listener: &pb.Listener{Spec: spec}})
	if err != nil {
		t.Fatal(err)
	}
	_, address, _ := strings.Cut(l.GetListener().GetStatus().GetBound()[0].GetUri(), "://")
	b.tcp = append(b.tcp, address)
	return b
}

// traffic goes on until ctx ends.
func (b *bench) traffic(ctx context.Context) *sync.WaitGroup {
	var clients sync.WaitGroup
	clients.Go(func() { b.exchange(ctx, "tcp", b.tcp[0], 1000) })
	clients.Go(func() { b.exchange(ctx, "tcp", b.tcp[1], 300_000) })
	clients.Go(func() { b.exchange(ctx, "udp", b.udp, 100) })
	return &clients
}

func (b *bench) exchange(ctx context.Context, network, address string, size int) {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	data := make([]byte, size)
	for ctx.Err() == nil {
		<-pace.C
		if err := echoed(network, address, data, 300*time.Millisecond); err != nil {
			b.bad.Add(1)
		} else {
			b.ok.Add(1)
		}
	}
}

// echoed has all of data come back.
func echoed(network, address string, data []byte, patience time.Duration) error {
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = conn.Write(data) }()
	_, err = io.ReadFull(conn, make([]byte, len(data)))
	return err
}

// descriptors counts those of the daemon.
func (v *victim) descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("%v; it logged: %s", err, v.log)
	}
	return len(names)
}

// cpu is the processor time that the daemon has taken.
func (v *victim) cpu(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("%v; it logged: %s", err, v.log)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// resident is the memory that the daemon has, in MiB.
func (v *victim) resident(t *testing.T) int {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", v.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(statm))[1])
	return pages * os.Getpagesize() >> 20
}

// until waits for what comes in its own time.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// Every error that the kernel may have for a system call, some of the time and
// then all of the time, while there is traffic and there are control calls: the
// daemon goes on, does not spin, and loses no descriptor; when the error is
// gone, all is as before.
// ERRNO_ONLY=sendto tries one.
func TestErrnos(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*patience)
	defer cancel()
	b := newBench(ctx, t)
	listeners := pb.NewListenerServiceClient(b.conn)
	warm, stop := context.WithCancel(ctx)
	clients := b.traffic(warm)
	until(t, "there is no traffic", func() bool { return b.ok.Load() > 20 })
	stop()
	clients.Wait()
	memory := b.resident(t)
	cases := 0
	for _, row := range errnos {
		if only := os.Getenv("ERRNO_ONLY"); only != "" && only != row.call {
			continue
		}
		always, rest, _ := strings.Cut(row.errors, "|")
		if os.Getenv("ERRNO_MATRIX") != "" {
			always += rest
		}
		for errno := range strings.FieldsSeq(always) {
			cases++
			b.suffers(ctx, t, row.call, errno)
			if _, err := listeners.ListListeners(ctx, &pb.ListListenersRequest{}, grpc.WaitForReady(true)); err != nil {
				t.Fatalf("%s %s: %v", row.call, errno, err)
			}
		}
	}
	t.Logf("%d errors; resident memory was %d MiB, is %d MiB", cases, memory, b.resident(t))
	if now := b.resident(t); now > memory+200 {
		t.Errorf("resident memory was %d MiB, is %d MiB", memory, now)
	}
}

// suffers is one case.
func (b *bench) suffers(ctx context.Context, t *testing.T, call, errno string) {
	t.Helper()
	before := b.descriptors(t)
	busy, stop := context.WithCancel(ctx)
	defer stop()
	b.ok.Store(0)
	b.bad.Store(0)
	clients := b.traffic(busy)
	var shares []time.Duration
	for _, when := range []string{":when=3+7", ""} {
		end := inject(t, b.cmd.Process.Pid, call+":error="+errno+when)
		began, cpu := time.Now(), b.cpu(t)
		pace := time.NewTicker(20 * time.Millisecond)
		for range 6 {
			<-pace.C
			b.control(ctx)
		}
		pace.Stop()
		shares = append(shares, (b.cpu(t)-cpu)*100/max(1, time.Since(began)))
		end()
	}
	stop()
	clients.Wait()
	t.Logf("%-12s %-14s %d exchanges went well and %d did not; CPU %d %% and %d %%", call, errno, b.ok.Load(), b.bad.Load(), shares[0], shares[1])
	if max(shares[0], shares[1]) > 80 {
		t.Errorf("%s %s: it spins", call, errno)
	}
	for i, address := range b.tcp {
		until(t, fmt.Sprintf("%s %s: listener %d does not come back; it logged: %s", call, errno, i, b.log), func() bool {
			return echoed("tcp", address, make([]byte, 1000), time.Second) == nil
		})
	}
	until(t, call+" "+errno+": datagrams do not come back", func() bool { return echoed("udp", b.udp, []byte("x"), time.Second) == nil })
	until(t, call+" "+errno+": a new control connection is not served", func() bool { return b.newControl(ctx, 2*time.Second) == nil })
	if call != "close" { // strace does not do what it lets fail
		b.noLeak(ctx, t, call+" "+errno, before)
	}
}

// noLeak waits until there are as many descriptors as there were, or says which
// connections are left.
func (b *bench) noLeak(ctx context.Context, t *testing.T, what string, before int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience / 3)
	for b.descriptors(t) > before+2 {
		if <-tick.C; time.Now().Before(end) {
			continue
		}
		left, err := pb.NewConnectionServiceClient(b.conn).ListConnections(ctx, &pb.ListConnectionsRequest{}, grpc.WaitForReady(true))
		t.Fatalf("%s: %d descriptors, were %d; connections: %v, %v", what, b.descriptors(t), before, left, err)
	}
}

// control makes the calls of an honest client, which may fail meanwhile.
func (b *bench) control(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	listeners := pb.NewListenerServiceClient(b.conn)
	_, err := listeners.GetListener(ctx, &pb.GetListenerRequest{Name: "echo"})
	spec := &pb.ListenerSpec{Handler: &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, Listen: []string{"tcp://127.0.0.1:0"}}
	_, err2 := listeners.CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: "try", Listener: &pb.Listener{Spec: spec}})
	_, err3 := listeners.DeleteListener(ctx, &pb.DeleteListenerRequest{Name: "try"})
	_ = errors.Join(err, err2, err3, b.newControl(ctx, 20*time.Millisecond)) // it is the daemon that matters
}

// newControl connects anew.
func (b *bench) newControl(ctx context.Context, patience time.Duration) error {
	conn, err := net.DialTimeout("unix", b.dir+"/c", patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 9)) // its settings
	return errors.Join(err, ctx.Err())
}
