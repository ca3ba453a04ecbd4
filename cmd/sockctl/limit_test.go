//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// highest is the greatest number of a descriptor of the daemon.
func (v *victim) highest(t *testing.T) (most int) {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if fd, err := strconv.Atoi(n.Name()); err == nil {
			most = max(most, fd)
		}
	}
	return most
}

// At the limit of descriptors, the daemon's own or the kernel's, while clients go
// on connecting: what is open is served, control calls are answered, hardly any
// processor is taken, it is told of once, and when a descriptor comes free the
// next client is served at once.
func TestDescriptorLimit(t *testing.T) {
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Skip("there is no prlimit (apt-get install util-linux)")
	}
	for _, c := range []struct {
		name   string
		before []string
		room   int // for connections; 0: until the kernel says EMFILE
	}{
		{"own", []string{"prlimit", "--nofile=400"}, 400 - 128},
		{"kernel", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			v := startVictim(t, t.TempDir(), c.before...)
			address := makeListener(ctx, t, v.conn, "echo", 0, "tcp://127.0.0.1:0")[0]
			var open []net.Conn
			defer func() {
				for _, c := range open {
					_ = c.Close()
				}
			}()
			dial := func() net.Conn {
				nc, err := net.DialTimeout("tcp", address, patience)
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, nc)
				_ = nc.SetDeadline(time.Now().Add(patience))
				return nc
			}
			for range 50 {
				nc := dial()
				_, _ = nc.Write([]byte("x"))
				answered(t, nc)
			}
			if c.room == 0 {
				limit := unix.Rlimit{Cur: uint64(v.highest(t)) + 21, Max: 20000}
				if err := unix.Prlimit(v.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
					t.Fatal(err)
				}
			}
			for range 300 { // more than there are descriptors
				dial()
			}
			listeners, events := pb.NewListenerServiceClient(v.conn), pb.NewEventServiceClient(v.conn)
			told := func() int {
				r, err := events.ListEvents(ctx, &pb.ListEventsRequest{Filter: `type = "daemon.starved"`})
				if err != nil {
					t.Fatal(err)
				}
				return len(r.GetEvents())
			}
			until(t, "nobody is told", func() bool { return told() == 1 })

			busy, stop := context.WithCancel(ctx)
			defer stop()
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					for busy.Err() == nil { // each waits in the kernel, and gives up
						nc, err := net.DialTimeout("tcp", address, 50*time.Millisecond)
						if err == nil {
							_, _ = nc.Write([]byte("x"))
							_ = nc.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
							_, _ = nc.Read(make([]byte, 1))
							_ = nc.Close()
						}
					}
				})
			}
			var took []time.Duration
			began, cpu := time.Now(), v.cpu(t)
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for time.Since(began) < 1500*time.Millisecond {
				<-pace.C
				one := time.Now()
				_, _ = open[0].Write([]byte("x"))
				answered(t, open[0])
				if _, err := listeners.GetListener(ctx, &pb.GetListenerRequest{Name: "echo"}); err != nil {
					t.Fatal(err)
				}
				took = append(took, time.Since(one))
			}
			share := float64(v.cpu(t)-cpu) * 100 / float64(time.Since(began))
			stop()
			clients.Wait()
			waits := open[len(open)-200] // in the queue, of which those before it have been accepted
			for i := range open {        // the first that has no answer
				_ = open[i].SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				_, _ = open[i].Write([]byte("x"))
				if _, err := open[i].Read(make([]byte, 1)); err != nil {
					waits = open[i]
					break
				}
			}
			_ = waits.SetDeadline(time.Now().Add(patience))
			free := time.Now()
			_ = open[1].Close()
			answered(t, waits)
			after := time.Since(free)
			t.Logf("CPU %.1f %% of one processor; a round trip and a control call p50 %v, max %v; the next client is served %v after a descriptor came free",
				share, percentile(took, 50), percentile(took, 100), after)
			if share > 15 {
				t.Errorf("CPU %.1f %%", share)
			}
			if after > time.Second/2 {
				t.Errorf("the next client was served after %v", after)
			}
			if n := told(); n != 1 {
				t.Errorf("it was told %d times", n)
			}
		})
	}
}
