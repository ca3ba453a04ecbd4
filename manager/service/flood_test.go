package service_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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
	case "rapid", "unasked", "sockets":
		method, request := pb.EventService_WatchEvents_FullMethodName, []byte(nil)
		switch how {
		case "unasked":
			method, request = pb.ListenerService_ListListeners_FullMethodName, make([]byte, 5) // that of no fields
		case "sockets":
			method, request = pb.SocketService_ListSockets_FullMethodName, make([]byte, 5)
		}
		conns, err := strconv.Atoi(cmp.Or(os.Getenv("HOSTILE_CONNS"), "4"))
		if err != nil {
			t.Fatal(err)
		}
		for range conns {
			go func() {
				for ctx.Err() == nil {
					resetRapidly(ctx, addr, method, request)
				}
			}()
		}
	case "largest":
		for _, size := range []int{1<<20 - 500, 1<<20 - 500, 4 << 20} {
			own := dialControl(t, addr)
			defer own.Close()
			body := &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: make([]byte, size)}}}
			r := &pb.CreateListenerRequest{ListenerId: "no name", Listener: &pb.Listener{Spec: withHandler(body, "tcp://127.0.0.1:0")}}
			go func() {
				for ctx.Err() == nil {
					_, _ = pb.NewListenerServiceClient(own).CreateListener(ctx, r)
				}
			}()
		}
	case "deaf":
		for range 32 {
			if _, err := events.WatchEvents(ctx, &pb.WatchEventsRequest{Tail: 1000}); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-ctx.Done()
}

// resetRapidly begins calls on one connection, with a request or none, and resets
// each at once, without waiting for anything, until that fails.
func resetRapidly(ctx context.Context, addr, method string, request []byte) {
	c, err := net.Dial("unix", addr)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	go func() { _, _ = io.Copy(io.Discard, c) }()
	var block bytes.Buffer
	fields := hpack.NewEncoder(&block)
	fields.SetMaxDynamicTableSize(0) // one block is as good as the next
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", method},
		{":authority", "localhost"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		_ = fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	out := bufio.NewWriterSize(c, 64<<10)
	_, _ = out.WriteString(http2.ClientPreface)
	frames := http2.NewFramer(out, nil)
	err = frames.WriteSettings()
	for id := uint32(1); err == nil && id < 1<<31; id += 2 {
		err = frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
		if err == nil && request != nil {
			err = frames.WriteData(id, true, request)
		}
		if err == nil {
			err = frames.WriteRSTStream(id, http2.ErrCodeCancel)
		}
	}
}

// honestly is how long an honest client may have to wait, where others use the
// host too: the goal is a tenth.
const honestly = 2 * time.Second

// Clients that flood with calls, that begin streams and reset them, that send the
// largest messages there are, and that never read what they watch: an honest one
// is answered meanwhile, and memory stays bounded.
func TestHostileClients(t *testing.T) {
	d := serve(t)
	echo := ping(t, d.create("web").GetStatus().GetBound()[0])
	defer echo.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	honest := func(what string) (p99 time.Duration) {
		var calls, trips []time.Duration
		if err := echo.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			<-tick.C
			began := time.Now()
			if _, err := d.listeners.GetListener(d.ctx, &pb.GetListenerRequest{Name: "web"}); err != nil {
				t.Fatal(err)
			}
			calls = append(calls, time.Since(began))
			began = time.Now()
			if _, err := echo.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(echo, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			trips = append(trips, time.Since(began))
		}
		slices.Sort(calls)
		slices.Sort(trips)
		var mem runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&mem)
		t.Logf("%-8s honest call: p50 %v, p99 %v, max %v; echo: p50 %v, p99 %v, max %v; heap %d MiB, %d goroutines", what,
			calls[50], calls[98], calls[99], trips[50], trips[98], trips[99], mem.HeapAlloc>>20, runtime.NumGoroutine())
		if mem.HeapAlloc > 256<<20 {
			t.Errorf("%s: the heap has %d MiB", what, mem.HeapAlloc>>20)
		}
		return calls[98]
	}
	honest("nobody")
	for _, how := range []string{"flood", "reset", "largest", "deaf", "rapid", "unasked", "sockets"} {
		bad := exec.Command(os.Args[0], "-test.run", "^TestBeHostile$")
		bad.Env = append(os.Environ(), "HOSTILE_ADDR="+d.addr, "HOSTILE_HOW="+how)
		end, err := bad.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := bad.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 10 { // what those who watch do not read
			if _, err := d.listeners.PauseListener(d.ctx, &pb.PauseListenerRequest{Name: "web"}); err != nil {
				t.Fatal(err)
			}
			if _, err := d.listeners.ResumeListener(d.ctx, &pb.ResumeListenerRequest{Name: "web"}); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%-8s 20 changes in %v", how, time.Since(began))
		took := honest(how)
		conns, err := strconv.Atoi(cmp.Or(os.Getenv("HOSTILE_CONNS"), "4"))
		if err != nil {
			t.Fatal(err)
		}
		for range conns { // it may have been others on this host
			if took > honestly {
				took = min(took, honest(how))
			}
		}
		if took > honestly {
			t.Errorf("%s: an honest call takes %v", how, took)
		}
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
