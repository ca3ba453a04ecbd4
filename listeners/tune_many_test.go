package listeners_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// mostPerTurn is how many options of connections one turn of the loop may set,
// each of which takes 2 to 4 us.
const mostPerTurn = 128

// clientsMark says to a process what it is to connect to, and how often.
const clientsMark = "SOCKMGR_TEST_CLIENTS"

// isClients reports whether this is the process of clients, and plays them: it
// connects, says so and stays until its input ends.
func isClients(t *testing.T) bool {
	t.Helper()
	text := os.Getenv(clientsMark)
	if text == "" {
		return false
	}
	address, count, _ := strings.Cut(text, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	fmt.Fprintln(os.Stdout, "connected")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

// clients connects n times to an address from a process of its own, so that
// both may have as many descriptors as the limit allows. They are gone when the
// test ends.
func clients(t *testing.T, to net.Addr, n int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$") //nolint:noctx // it ends with its input
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%v %d", clientsMark, to, n))
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
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "connected\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

// manyConns is 10,000, or what the limit of descriptors leaves room for.
func manyConns(t *testing.T) int {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < 2000 {
		t.Skipf("a limit of %d descriptors is too low", limit.Cur)
	}
	return min(10_000, int(limit.Cur)-1000)
}

// Tuning 10,000 open connections is cut into turns of the loop in which a
// bounded number of options is set, and between which others are served. Times
// are only told, since they are the machine's.
func TestTuneMany(t *testing.T) {
	oneLoop(t)
	if isClients(t) {
		return
	}
	n := manyConns(t)
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp4://127.0.0.1:0"))
	clients(t, h.addr(l, 0), n)
	eventually(t, func() bool { return h.stats(l).Accepted == uint64(n) }, func() string { return fmt.Sprint(h.stats(l)) })

	c := dial(t, h.addr(l, 0))
	ask(t, c, []byte("first"))
	var echoed atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			got := make([]byte, 4)
			if _, err := io.WriteString(c, "ping"); err != nil {
				t.Error(err)
				return
			}
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
				t.Errorf("%q, %v", got, err)
				return
			}
			echoed.Add(1)
		}
	}()
	for _, kv := range [][2]string{
		{"tcp.no_delay", "false"},
		{"tcp.keepalive_idle", "100s"},
		{"tcp.congestion", "reno"},
		{"receive_buffer_bytes", "64KiB"},
		{"receive_buffer_bytes", ""},
		{"linger", ""},
		{"tcp.no_delay", ""},
	} {
		v, err := listeners.ParseOption(kv[0], listeners.StringValue(kv[1]), listeners.OnTCP)
		if kv[1] == "" {
			v, err = listeners.Value{}, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		turns, most, longest, before, begin := 0, uint64(0), time.Duration(0), echoed.Load(), time.Now()
		total := uint64(0)
		for next := 0; next >= 0; turns++ {
			var results []listeners.Result
			h.do(func() {
				start := time.Now()
				results, next = h.set.TuneConns(l, listeners.LookupOption(kv[0]), v, next, nil)
				longest = max(longest, time.Since(start))
			})
			set := uint64(0)
			for _, r := range results {
				set += r.Connections
			}
			most, total = max(most, set), total+set
			// Somebody else is served before the next turn of it.
			served := echoed.Load()
			eventually(t, func() bool { return echoed.Load() > served || t.Failed() }, func() string { return "no echo between two turns" })
		}
		if most > mostPerTurn || total != uint64(n)+1 {
			t.Errorf("%s=%s: %d connections in all, up to %d in one turn", kv[0], kv[1], total, most)
		}
		t.Logf("%s=%s: %d connections in %d turns, most in one %d, longest %v, in all %v, %d echoes meanwhile",
			kv[0], kv[1], total, turns, most, longest, time.Since(begin), echoed.Load()-before)
	}
	close(stop)
	<-stopped
}
