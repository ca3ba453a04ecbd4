package client_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/sockmgr/sockmgr/client"
	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

var daemonProgram string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sockmgr-client")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	daemonProgram = filepath.Join(dir, "sockmgr")
	if out, err := exec.Command("go", "build", "-o", daemonProgram, "../cmd/sockmgr").CombinedOutput(); err != nil {
		panic(string(out))
	}
	m.Run()
}

// startDaemon runs one until the test ends, and returns a client of it.
func startDaemon(tb testing.TB) *client.Client {
	tb.Helper()
	goroutines := runtime.NumGoroutine()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // tb.TempDir is too long for the path of a socket
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	addr := "unix://" + dir + "/c"
	cmd := exec.Command(daemonProgram, "--state", "memory", "--control", addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	logged := make(chan string, 1)
	ready := make(chan struct{})
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&all, lines.Text())
			if strings.Contains(lines.Text(), "ready on") {
				close(ready)
			}
		}
		logged <- all.String()
	}()
	tb.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			tb.Error(err)
		}
		text := <-logged
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the daemon: %v\n%s", err, text)
		}
		for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
			if time.Now().After(end) {
				stacks := make([]byte, 64<<10)
				tb.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
	select {
	case <-ready:
	case text := <-logged:
		logged <- text
		tb.Fatalf("the daemon is not ready:\n%s", text)
	}
	c, err := client.Dial(addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

func listen(t *testing.T, c *client.Client, name string) *client.Listener {
	t.Helper()
	l, err := c.Listen(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// Both ends of a connection through the daemon are a net.Conn in every respect.
func TestConn(t *testing.T) {
	c := startDaemon(t)
	l := listen(t, c, "tcp://127.0.0.1:0")
	for name, dial := range map[string]func() (net.Conn, error){
		"accepted": func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) },
		"both":     func() (net.Conn, error) { return c.DialContext(t.Context(), "tcp", l.Addr().String()) },
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				there, err := dial()
				if err != nil {
					return nil, nil, nil, err
				}
				here, err := l.Accept()
				if err != nil {
					return nil, nil, nil, err
				}
				return here, there, func() { here.Close(); there.Close() }, nil
			})
		})
	}
}

// A web server and its client, of the standard library, through the daemon.
func TestHTTP(t *testing.T) {
	c := startDaemon(t)
	l := listen(t, c, "tcp://127.0.0.1:0")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %v from %s", len(body), err, r.RemoteAddr)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	for _, transport := range []*http.Transport{{}, {DialContext: c.DialContext}} {
		web := http.Client{Transport: transport}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for size := range 3 {
					resp, err := web.Post("http://"+l.Addr().String(), "text/plain", bytes.NewReader(make([]byte, size<<17)))
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if want := fmt.Sprintf("%d <nil> from 127.0.0.1:", size<<17); !strings.HasPrefix(string(body), want) || err != nil {
						t.Errorf("%q, %v, want %q", body, err, want)
					}
				}
			})
		}
		wg.Wait()
		transport.CloseIdleConnections()
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// An address can be listened at again at once, though connections of before are
// in TIME_WAIT.
func TestListenAgain(t *testing.T) {
	c := startDaemon(t)
	at := "127.0.0.1:0"
	for range 3 {
		l := listen(t, c, "tcp://"+at)
		at = l.Addr().String()
		peer, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.(interface{ CloseWrite() error }).CloseWrite() // it ends first
		if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		peer.Close()
		conn.Close()
		l.Close()
	}
}

// Clients share the connections of a listener, and those that nobody takes wait.
func TestListener(t *testing.T) {
	c := startDaemon(t)
	_, err := pb.NewListenerServiceClient(c.GRPC()).CreateListener(t.Context(), &pb.CreateListenerRequest{
		ListenerId: "web", Listener: &pb.Listener{Spec: &pb.ListenerSpec{
			Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{Kind: &pb.Handler_Remote{Remote: &pb.RemoteHandler{}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		l := listen(t, c, "web")
		peers := make([]net.Conn, 5)
		for i := range peers {
			if peers[i], err = net.Dial("tcp", l.Addr().String()); err != nil {
				t.Fatal(err)
			}
			defer peers[i].Close()
			fmt.Fprintf(peers[i], "%d.%d\n", round, i)
		}
		for i := range peers {
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			if line != fmt.Sprintf("%d.%d\n", round, i) || err != nil || conn.RemoteAddr().String() != peers[i].LocalAddr().String() {
				t.Errorf("%q from %v, %v", line, conn.RemoteAddr(), err)
			}
			conn.Close()
		}
		l.Close()
	}
}

// What is written before Close arrives, whole, and then the end.
func TestCloseSends(t *testing.T) {
	c := startDaemon(t)
	l := listen(t, c, "tcp://127.0.0.1:0")
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() {
		conn.Write(data)
		conn.Close()
	}()
	got, err := io.ReadAll(peer)
	if sha256.Sum256(got) != sha256.Sum256(data) || err != nil {
		t.Errorf("%d bytes of %d: %v", len(got), len(data), err)
	}
}

// Half-close goes both ways.
func TestHalfClose(t *testing.T) {
	c := startDaemon(t)
	l := listen(t, c, "tcp://127.0.0.1:0")
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(peer, "question")
	peer.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "question" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	io.WriteString(conn, "answer")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(peer); string(got) != "answer" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// Errors have the kernel's errno.
func TestErrors(t *testing.T) {
	c := startDaemon(t)
	l := listen(t, c, "tcp://127.0.0.1:0")
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	if _, err := c.DialContext(t.Context(), "tcp", nobody.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect where nobody is: %v", err)
	}
	if _, err := c.Listen(t.Context(), "tcp://"+l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen where someone is: %v", err)
	}
	if _, err := c.DialContext(t.Context(), "tcp", "127.0.0.1"); err == nil {
		t.Error("no port")
	}
	if _, err := c.DialContext(t.Context(), "sctp", "127.0.0.1:1"); !errors.As(err, new(net.UnknownNetworkError)) {
		t.Errorf("another network: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.DialContext(ctx, "tcp", l.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer.(*net.TCPConn).SetLinger(0)
	peer.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a reset: %v", err)
	}
}

// Accept ends with the listener, and a client without a daemon says so.
func TestListenerCloses(t *testing.T) {
	c := startDaemon(t)
	l := listen(t, c, "tcp://127.0.0.1:0")
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the socket is there still: %v", err)
	}
	alone, err := client.Dial("/nobody/here")
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	if _, err := alone.DialContext(t.Context(), "tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	for _, bad := range []string{"localhost:1", "udp://x:1", "unix://"} {
		if _, err := client.Dial(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
