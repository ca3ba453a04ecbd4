package service_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func dialControl(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestBeHostile is the other process of TestHostileClients: it does as it is
// told until its input ends.
func TestBeHostile(t *testing.T) {
	addr, how := os.Getenv("HOSTILE_ADDR"), os.Getenv("HOSTILE_HOW")
	if addr == "" {
		t.Skip("it is for TestHostileClients to run")
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	conn := dialControl(t, addr)
	defer conn.Close()
	list, events := pb.NewListenerServiceClient(conn), pb.NewEventServiceClient(conn)
	switch how {
	case "flood":
		for range 200 {
			go func() {
				for ctx.Err() == nil {
					_, _ = list.ListListeners(ctx, &pb.ListListenersRequest{})
				}
			}()
		}
	case "reset":
		go func() {
			for ctx.Err() == nil {
				one, cancel := context.WithCancel(ctx)
				_, _ = events.WatchEvents(one, &pb.WatchEventsRequest{})
				cancel()
			}
		}()
	case "deaf":
		for range 32 {
			if _, err := events.WatchEvents(ctx, &pb.WatchEventsRequest{Tail: 1000}); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-ctx.Done()
}

// Clients that flood with calls, that begin streams and reset them, and that
// never read what they watch: an honest one is answered meanwhile, and memory
// stays bounded. The times are for people to read.
func TestHostileClients(t *testing.T) {
	d := serve(t)
	d.create("web")
	honest := func(what string) {
		var took []time.Duration
		for range 100 {
			began := time.Now()
			if _, err := d.listeners.GetListener(d.ctx, &pb.GetListenerRequest{Name: "web"}); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		var mem runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&mem)
		t.Logf("%-8s honest call: median %v, p99 %v, max %v; heap %d MiB, %d goroutines", what, took[50], took[98], took[99], mem.HeapAlloc>>20, runtime.NumGoroutine())
		if mem.HeapAlloc > 256<<20 {
			t.Errorf("%s: the heap has %d MiB", what, mem.HeapAlloc>>20)
		}
	}
	honest("nobody")
	for _, how := range []string{"flood", "reset", "deaf"} {
		bad := exec.Command(os.Args[0], "-test.run", "^TestBeHostile$")
		bad.Env = append(os.Environ(), "HOSTILE_ADDR="+d.addr, "HOSTILE_HOW="+how)
		end, err := bad.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := bad.Start(); err != nil {
			t.Fatal(err)
		}
		for range 30 { // what those who watch do not read
			if _, err := d.listeners.PauseListener(d.ctx, &pb.PauseListenerRequest{Name: "web"}); err != nil {
				t.Fatal(err)
			}
			if _, err := d.listeners.ResumeListener(d.ctx, &pb.ResumeListenerRequest{Name: "web"}); err != nil {
				t.Fatal(err)
			}
		}
		honest(how)
		end.Close()
		if err := bad.Wait(); err != nil {
			t.Error(how, err)
		}
	}
}

// So many connections of one user and no more; when one closes, the next comes
// in.
func TestConnectionsOfOne(t *testing.T) {
	d := serve(t)
	var all []*grpc.ClientConn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	open := func() error {
		conn := dialControl(t, d.addr)
		all = append(all, conn)
		_, err := pb.NewDaemonServiceClient(conn).WhoAmI(d.ctx, &pb.WhoAmIRequest{})
		return err
	}
	err := open()
	for err == nil && len(all) < 200 {
		err = open()
	}
	if status.Code(err) != codes.Unavailable || len(all) != 128+1 {
		t.Fatalf("%d connections, %v", len(all), err)
	}
	all[0].Close()
	eventually(t, func() bool { return open() == nil })
}
