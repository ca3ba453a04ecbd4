package service_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// manyClients is the mark of the process that TestManyConnections has its
// clients in: a process has descriptors for one end of so many connections only.
const manyClients = "SOCKMGR_TEST_CLIENTS"

// TestManyClients is that process. It opens as many connections as it is told,
// says so, and then opens and closes others until its stdin ends.
func TestManyClients(t *testing.T) {
	port, n := uint16(0), 0
	if _, err := fmt.Sscan(os.Getenv(manyClients), &port, &n); err != nil {
		t.Skip("runs in a process of TestManyConnections only")
	}
	connect := func(i int) int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		to := &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, byte(2 + i%8)}} // ports for 28,000 to one address
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(i, err)
		}
		return fd
	}
	for i := range n {
		connect(i)
	}
	fmt.Fprintln(os.Stdout, "connected")
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return
	}
	var over atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, in) // its end is all that counts
		over.Store(true)
	}()
	others := make([]int, 0, 200)
	for i := 0; !over.Load(); i++ {
		fd := connect(i)
		if len(others) < cap(others) {
			others = append(others, fd)
			continue
		}
		unix.Close(others[i%len(others)])
		others[i%len(others)] = fd
	}
}

// fleet is a process with clients.
type fleet struct {
	t  *testing.T
	in io.WriteCloser
}

func startFleet(t *testing.T, port uint32, n int) *fleet {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestManyClients$", "-test.timeout=120s") //nolint:noctx // it ends with its stdin
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", manyClients, port, n))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, lines)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if line, err := lines.ReadString('\n'); err != nil || line != "connected\n" {
		rest, _ := io.ReadAll(lines)
		t.Fatalf("clients: %s%s, %v", line, rest, err)
	}
	return &fleet{t, in}
}

// churn lets connections open and close from now on.
func (f *fleet) churn() {
	f.t.Helper()
	if _, err := io.WriteString(f.in, "churn\n"); err != nil {
		f.t.Fatal(err)
	}
}

func (d *daemon) turns() uint64 {
	d.t.Helper()
	resp, err := d.stats.GetStats(d.ctx, &pb.GetStatsRequest{})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetSnapshot().GetLoop().GetTurns()
}

// names pages through connections, for as long as more says so, and counts how
// often it sees each.
func (d *daemon) names(r *pb.ListConnectionsRequest, more func(page int) bool) map[string]int {
	d.t.Helper()
	seen := map[string]int{}
	for page := 1; ; page++ {
		resp, err := d.connections.ListConnections(d.ctx, r)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, c := range resp.GetConnections() {
			seen[c.GetName()]++
		}
		if !more(page) || resp.GetNextPageToken() == "" {
			return seen
		}
		r.PageToken = resp.GetNextPageToken()
	}
}

// As many connections as the limits allow are paged through, watched, sorted
// and closed while others open and close and an echo goes on: no turn of the
// loop does more than a bounded part of it.
func TestManyConnections(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := int(min(15_000, limit.Cur-min(limit.Cur, 1000)))
	if n < 1000 {
		t.Skipf("only %d descriptors may be open", limit.Cur)
	}
	oneLoop(t)
	d := serve(t)
	many := d.create("many", "tcp4://0.0.0.0:0").GetStatus().GetBound()[0]
	echo := ping(t, d.create("echo").GetStatus().GetBound()[0])
	began := time.Now()
	clients := startFleet(t, many.GetPort(), n)
	eventually(t, func() bool { return d.get("many").GetStatus().GetActiveConnections() == uint64(n) })
	t.Logf("%d connections: %v", n, time.Since(began))

	// While nothing else goes on it can be counted that every page is read in
	// turns of 64 connections.
	turns := d.turns()
	began = time.Now()
	stable := d.names(&pb.ListConnectionsRequest{PageSize: 1000}, func(int) bool { return true })
	turns = d.turns() - turns
	t.Logf("all pages: %v, %d turns", time.Since(began), turns)
	if len(stable) != n+1 || turns < uint64(n/64) || turns > uint64(n/64+n/1000*8) {
		t.Fatalf("%d connections, want %d; in %d turns", len(stable), n+1, turns)
	}

	// From now on an echo goes on.
	if err := echo.SetDeadline(time.Now().Add(3 * patience)); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	var echoes atomic.Int64
	var worst atomic.Int64
	go func() {
		defer close(stopped)
		for buf := make([]byte, 4); ; echoes.Add(1) {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			_, err := io.WriteString(echo, "ping")
			if _, err2 := io.ReadFull(echo, buf); errors.Join(err, err2) != nil {
				t.Error(err, err2)
				return
			}
			worst.Store(max(worst.Load(), int64(time.Since(began))))
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	phase := func(what string, f func()) {
		t.Helper()
		worst.Store(0)
		before, began := echoes.Load(), time.Now()
		f()
		t.Logf("%s: %v; %d echoes, the slowest took %v", what, time.Since(began), echoes.Load()-before, time.Duration(worst.Load()))
		if echoes.Load()-before < int64(n/256/8) { // not a turn each: the machine has other things to do
			t.Errorf("%s: %d echoes are too few for that many turns", what, echoes.Load()-before)
		}
	}
	phase("a watch that sends all", func() {
		w := d.watchConns(&pb.WatchConnectionsRequest{SendInitial: true})
		defer w.stop()
		got := map[string]bool{}
		for {
			m, err := w.stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetType() == synced {
				break
			}
			got[m.GetConnection().GetName()] = true
		}
		if len(got) != n+1 {
			t.Errorf("%d connections, want %d", len(got), n+1)
		}
	})

	clients.churn()
	accepted := func() uint64 { return d.get("many").GetStatus().GetAcceptedTotal() }
	phase("all pages while others come and go", func() {
		last := accepted()
		seen := d.names(&pb.ListConnectionsRequest{PageSize: 1000}, func(int) bool {
			now := last
			eventually(t, func() bool { now = accepted(); return now > last }) // others did come between two pages
			last = now
			return true
		})
		for name := range stable {
			if seen[name] != 1 {
				t.Fatalf("%s was seen %d times", name, seen[name])
			}
		}
		for name, times := range seen {
			if times > 1 {
				t.Fatalf("%s was seen %d times", name, times)
			}
		}
	})
	phase("three pages of the oldest", func() {
		seen := d.names(&pb.ListConnectionsRequest{PageSize: 1000, OrderBy: "create_time"}, func(page int) bool { return page < 3 })
		if len(seen) != 3000 {
			t.Errorf("%d connections on three pages", len(seen))
		}
		for name := range seen {
			if stable[name] != 1 { // others are younger
				t.Fatalf("%s is not one of the oldest", name)
			}
		}
	})
	phase("the ten slowest", func() {
		resp, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{PageSize: 10, OrderBy: "tcp_info.rtt desc", View: pb.ConnectionView_CONNECTION_VIEW_FULL})
		if err != nil || len(resp.GetConnections()) != 10 {
			t.Fatal(len(resp.GetConnections()), err)
		}
		for i, c := range resp.GetConnections()[1:] {
			if c.GetTcpInfo().GetRtt().AsDuration() > resp.GetConnections()[i].GetTcpInfo().GetRtt().AsDuration() {
				t.Errorf("%v after %v", c.GetTcpInfo().GetRtt().AsDuration(), resp.GetConnections()[i].GetTcpInfo().GetRtt().AsDuration())
			}
		}
	})
	clients.in.Close() // the process ends, and all its connections with it
	phase("the end of all", func() {
		eventually(t, func() bool { return d.get("many").GetStatus().GetActiveConnections() == 0 })
	})
	if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "many", DrainTimeout: durationpb.New(0)}); err != nil {
		t.Error(err)
	}
}
