//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// makeDurable makes a listener with durability=connections.
func makeDurable(ctx context.Context, t *testing.T, conn *grpc.ClientConn, name string, handler *pb.Handler) string {
	t.Helper()
	l, err := pb.NewListenerServiceClient(conn).CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: name, Listener: &pb.Listener{Spec: &pb.ListenerSpec{
		Handler: handler, Listen: []string{"tcp://127.0.0.1:0"},
		Options: map[string]*structpb.Value{"durability": structpb.NewStringValue("connections")},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	_, address, _ := strings.Cut(l.GetListener().GetStatus().GetBound()[0].GetUri(), "://")
	return address
}

// A stream is bytes that both ends know.
type stream struct{ *rand.ChaCha8 }

func newStream(seed uint64) stream {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return stream{rand.NewChaCha8(key)}
}

func (s stream) next(n int) []byte {
	b := make([]byte, n)
	_, _ = s.Read(b) // never fails
	return b
}

// A checker reads what shall be a stream.
type checker struct {
	stream
	n int64
}

func (c *checker) Write(p []byte) (int, error) {
	if !bytes.Equal(p, c.next(len(p))) {
		return 0, fmt.Errorf("%w within %d bytes from byte %d on", errWrongBytes, len(p), c.n)
	}
	c.n += int64(len(p))
	return len(p), nil
}

var errWrongBytes = errors.New("bytes that were not sent, or not these")

// durable counts what clients of durable connections meet.
type durable struct {
	t       *testing.T
	opened  atomic.Int64
	lost    atomic.Int64
	checked atomic.Int64
	mu      sync.Mutex
	why     map[string]int
	stop    <-chan struct{}
	until   time.Time // when whoever waits still waits in vain
}

func (d *durable) stopped() bool {
	select {
	case <-d.stop:
		return true
	default:
		return false
	}
}

// serve has f use one connection after the other until it is over. What is wrong
// in it fails the test; what it cannot read or write is a lost connection.
func (d *durable) serve(kind, address string, f func(c *net.TCPConn, seed uint64) error) {
	for !d.stopped() {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			d.t.Errorf("%s: %v", kind, err)
			return
		}
		c := nc.(*net.TCPConn)
		seed := uint64(d.opened.Add(1))
		_ = c.SetDeadline(d.until)
		err = f(c, seed)
		_ = c.Close()
		var timeout net.Error
		switch {
		case err == nil:
		case errors.Is(err, errWrongBytes), errors.As(err, &timeout) && timeout.Timeout():
			d.t.Errorf("%s: %v", kind, err)
			return
		default:
			d.lost.Add(1)
			d.mu.Lock()
			d.why[kind+": "+strings.ReplaceAll(err.Error(), c.LocalAddr().String(), "")]++
			d.mu.Unlock()
		}
	}
}

// say sends a stream in pieces until it is told to stop, or has said enough, then
// finishes.
func (d *durable) say(c *net.TCPConn, seed uint64, most int, pause time.Duration, enough int64) (int64, error) {
	s, sizes := newStream(seed), rand.New(rand.NewPCG(seed, 1))
	pace := time.NewTicker(pause)
	defer pace.Stop()
	var n int64
	for !d.stopped() && (enough == 0 || n < enough) {
		p := s.next(1 + sizes.IntN(most))
		if _, err := c.Write(p); err != nil {
			return n, err
		}
		n += int64(len(p))
		<-pace.C
	}
	return n, c.CloseWrite()
}

// hear checks a stream until its end.
func (d *durable) hear(c *net.TCPConn, seed uint64, most int, pause time.Duration) (int64, error) {
	check := &checker{stream: newStream(seed)}
	buf := make([]byte, most)
	pace := time.NewTicker(pause)
	defer pace.Stop()
	for {
		n, err := c.Read(buf)
		if _, err := check.Write(buf[:n]); err != nil {
			return check.n, err
		}
		d.checked.Add(int64(n))
		if errors.Is(err, io.EOF) {
			return check.n, nil
		}
		if err != nil {
			return check.n, err
		}
		if !d.stopped() {
			<-pace.C
		}
	}
}

// both says one stream and hears another, and wants as much back as echo says.
func (d *durable) both(c *net.TCPConn, say, hear uint64, write, read int, enough int64, echo bool) error {
	said := make(chan error, 1)
	var out int64
	go func() {
		var err error
		out, err = d.say(c, say, write, time.Millisecond, enough)
		said <- err
	}()
	in, err := d.hear(c, hear, read, time.Millisecond)
	if err != nil {
		_ = c.SetDeadline(time.Now()) // the other ends too
	}
	err = errors.Join(err, <-said)
	if err == nil && echo && in != out {
		err = fmt.Errorf("%w: %d of %d came back, and then the end", errWrongBytes, in, out)
	}
	return err
}

// requests pipelines HTTP requests, some with bodies, and checks each answer.
func (d *durable) requests(c *net.TCPConn, seed uint64, body []byte, depth, most int) error {
	sizes := rand.New(rand.NewPCG(seed, 2))
	in := bufio.NewReader(c)
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for !d.stopped() {
		var out bytes.Buffer
		methods := make([]string, 1+sizes.IntN(depth))
		for i := range methods {
			methods[i] = []string{"GET", "HEAD", "POST", "PUT"}[sizes.IntN(4)]
			fmt.Fprintf(&out, "%s /%d HTTP/1.1\r\nHost: a\r\nX-Filler: %s\r\n", methods[i], seed, strings.Repeat("x", sizes.IntN(2000)))
			switch methods[i] {
			case "POST":
				n := sizes.IntN(most)
				fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n", n)
				out.Write(make([]byte, n))
			case "PUT":
				fmt.Fprintf(&out, "Transfer-Encoding: chunked\r\n\r\n")
				w := httputil.NewChunkedWriter(&out)
				for range sizes.IntN(5) {
					_, _ = w.Write(make([]byte, 1+sizes.IntN(most)))
				}
				_ = w.Close()
				out.WriteString("\r\n")
			default:
				out.WriteString("\r\n")
			}
		}
		wrote := make(chan error, 1)
		go func() {
			_, err := c.Write(out.Bytes())
			wrote <- err
		}()
		for _, method := range methods {
			if err := d.answer(in, method, body); err != nil {
				_ = c.SetDeadline(time.Now())
				<-wrote
				return err
			}
		}
		if err := <-wrote; err != nil {
			return err
		}
		<-pace.C
	}
	return nil
}

func (d *durable) answer(in *bufio.Reader, method string, body []byte) error {
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		if strings.Contains(err.Error(), "malformed") {
			return fmt.Errorf("%w: %w", errWrongBytes, err)
		}
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	want := body
	if method == "HEAD" {
		want = nil
	}
	if resp.StatusCode != http.StatusOK || !bytes.Equal(got, want) || resp.ContentLength != int64(len(body)) {
		return fmt.Errorf("%w: %v %v, %d bytes", errWrongBytes, resp.Status, resp.Header, len(got))
	}
	if _, err := http.ParseTime(resp.Header.Get("Date")); err != nil {
		return fmt.Errorf("%w: %w", errWrongBytes, err)
	}
	d.checked.Add(int64(len(got)))
	return nil
}

// upstreams serves what forward connects to: it says who it hears, so that both
// ends know what to expect.
func (d *durable) upstreams(l net.Listener, wg *sync.WaitGroup) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer nc.Close()
			c := nc.(*net.TCPConn)
			in := bufio.NewReader(c)
			var seed uint64
			line, err := in.ReadString('\n')
			if err == nil {
				_, err = fmt.Sscan(line, &seed)
			}
			if err != nil {
				return // lost before it said a word
			}
			said := make(chan error, 1)
			go func() {
				_, err := d.say(c, seed+1<<32, 30_000, time.Millisecond, int64(seed%3)*100_000)
				said <- err
			}()
			check := &checker{stream: newStream(seed)}
			n, err := io.Copy(check, in)
			d.checked.Add(n)
			if errors.Is(err, errWrongBytes) {
				d.t.Errorf("at the upstream: %v", err)
			}
			if err != nil {
				_ = c.SetDeadline(time.Now())
			}
			<-said
		})
	}
}

// kill -9 at any moment: established connections go on, no byte is lost and none
// comes twice. DURABLE_KILLS=500 is the long form.
func TestKillLosesNoConnection(t *testing.T) {
	kills, each := fromEnv(t, "DURABLE_KILLS", 10), fromEnv(t, "DURABLE_CLIENTS", 2)
	s := supervise(t, t.TempDir())
	conn := s.api(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience+time.Duration(kills)*5*time.Second)
	defer cancel()
	stop := make(chan struct{})
	end, _ := ctx.Deadline()
	d := &durable{t: t, why: map[string]int{}, stop: stop, until: end}

	var clients, servers sync.WaitGroup
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	servers.Go(func() { d.upstreams(backend, &servers) })

	small, large := []byte("hello\n"), newStream(7).next(300_000)
	httpOf := func(body []byte) *pb.Handler {
		return &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: body}}}
	}
	echo := makeDurable(ctx, t, conn, "echo", &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}})
	web, big := makeDurable(ctx, t, conn, "web", httpOf(small)), makeDurable(ctx, t, conn, "big", httpOf(large))
	reply := makeDurable(ctx, t, conn, "reply", &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{Payload: large}}})
	forward := makeDurable(ctx, t, conn, "forward", &pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{
		Upstreams: []*pb.Upstream{{Address: "tcp://" + backend.Addr().String()}},
	}}})

	for range each {
		clients.Go(func() {
			d.serve("echo", echo, func(c *net.TCPConn, seed uint64) error {
				return d.both(c, seed, seed, 60_000, 100_000, 0, true)
			})
		})
		clients.Go(func() {
			d.serve("slow echo", echo, func(c *net.TCPConn, seed uint64) error {
				_ = c.SetReadBuffer(128 << 10) // with much less the kernel only probes
				return d.both(c, seed, seed, 100_000, 20_000, 0, true)
			})
		})
		clients.Go(func() {
			d.serve("forward", forward, func(c *net.TCPConn, seed uint64) error {
				if _, err := fmt.Fprintln(c, seed); err != nil {
					return err
				}
				return d.both(c, seed, seed+1<<32, 50_000, 50_000, int64(seed%4)*100_000, false)
			})
		})
		clients.Go(func() {
			d.serve("echo to its end", echo, func(c *net.TCPConn, seed uint64) error {
				return d.both(c, seed, seed, 50_000, 50_000, int64(1+rand.IntN(500_000)), true)
			})
		})
		clients.Go(func() {
			d.serve("http", web, func(c *net.TCPConn, seed uint64) error { return d.requests(c, seed, small, 20, 3000) })
		})
		clients.Go(func() {
			d.serve("big http", big, func(c *net.TCPConn, seed uint64) error { return d.requests(c, seed, large, 3, 100_000) })
		})
	}
	pause := func(d time.Duration) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
	}
	clients.Go(func() {
		d.serve("one request", web, func(c *net.TCPConn, _ uint64) error {
			pause(5 * time.Millisecond)
			if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				return err
			}
			return d.answer(bufio.NewReader(c), "GET", small)
		})
	})
	clients.Go(func() {
		d.serve("reply", reply, func(c *net.TCPConn, _ uint64) error {
			pause(5 * time.Millisecond)
			got, err := io.ReadAll(c)
			if err == nil && len(got) == 0 {
				return io.ErrUnexpectedEOF // it was killed as it accepted
			}
			if err == nil && !bytes.Equal(got, large) {
				err = fmt.Errorf("%w: %d of %d", errWrongBytes, len(got), len(large))
			}
			d.checked.Add(int64(len(got)))
			return err
		})
	})

	ping, err := net.Dial("tcp", echo)
	if err != nil {
		t.Fatal(err)
	}
	defer ping.Close()
	var gaps []time.Duration
	for range kills {
		pause(time.Duration(rand.Int64N(int64(60 * time.Millisecond))))
		pid := daemonPid(ctx, t, conn)
		began := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = ping.SetDeadline(time.Now().Add(patience))
		_, err := ping.Write([]byte{'x'})
		if err == nil {
			_, err = io.ReadFull(ping, make([]byte, 1))
		}
		if err != nil {
			t.Fatal("a connection that was there through all kills:", err)
		}
		gaps = append(gaps, time.Since(began))
	}
	close(stop)
	clients.Wait()
	_ = backend.Close()
	servers.Wait()
	slices.Sort(gaps)
	t.Logf("%d kills, %d connections, %d lost, %d MiB checked; gap p50 %v p99 %v max %v", kills, d.opened.Load()+1, d.lost.Load(),
		d.checked.Load()>>20, gaps[len(gaps)/2], gaps[len(gaps)*99/100], gaps[len(gaps)-1])
	for why, n := range d.why {
		t.Logf("  lost: %d %s", n, why)
	}
	if lost := d.lost.Load(); lost > int64(3+kills/10) { // those that were just being accepted
		logged, _ := os.ReadFile(s.log.Name())
		t.Errorf("%d connections were lost:\n%s", lost, logged)
	}
}
