package listeners_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// askOnce reads all that a connection says, or sends a datagram and reads the
// answer.
func askOnce(t *testing.T, to net.Addr) []byte {
	t.Helper()
	c := dial(t, to)
	defer c.Close()
	if strings.HasPrefix(to.Network(), "udp") {
		io.WriteString(c, "?")
		buf := make([]byte, 2000)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return buf[:n]
	}
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// daytime and time tell what time it is, and end the connection.
func TestDaytime(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		where := func() []string {
			return []string{"tcp://127.0.0.1:0", "udp://[::]:0", "unix://" + filepath.Join(shortDir(t), "s")}
		}
		text, number := h.open(spec(t, listeners.Daytime{}, "", where()...)), h.open(spec(t, listeners.Time{}, "", where()...))
		for i := range 3 {
			before := time.Now().Truncate(time.Second)
			line := askOnce(t, h.local(text, i))
			said, err := time.ParseInLocation(time.ANSIC+"\r\n", string(line), time.Local)
			if err != nil || said.Before(before.Add(-time.Second)) || said.After(time.Now()) {
				t.Errorf("daytime %q, it is %v: %v", line, before, err)
			}
			bits := askOnce(t, h.local(number, i))
			if len(bits) != 4 {
				t.Fatalf("time is %x", bits)
			}
			// RFC 868: 2,208,988,800 corresponds to 00:00 1 Jan 1970 GMT.
			seconds := uint32(before.Unix() + 2208988800)
			if n := binary.BigEndian.Uint32(bits) - seconds + 1; n > 32 {
				t.Errorf("time is %d seconds from %d", int32(n-1), seconds)
			}
		}
	})
}

// chargen sends the lines of RFC 864 until its peer has finished, and a
// datagram no longer than the one it answers.
func TestChargen(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Chargen{}, "", "tcp://127.0.0.1:0", "udp://127.0.0.1:0", "unix://"+filepath.Join(shortDir(t), "s")))
		for _, i := range []int{0, 2} {
			c := dial(t, h.addr(l, i))
			io.WriteString(c, "nobody reads this")
			r := bufio.NewReader(c)
			for n := range 1000 {
				line, err := r.ReadString('\n')
				if err != nil || len(line) != 74 || !strings.HasSuffix(line, "\r\n") {
					t.Fatalf("line %d: %q, %v", n, line, err)
				}
				for i := range 72 {
					if want := byte(' ' + (n+i)%95); line[i] != want {
						t.Fatalf("line %d has %q at %d, want %q", n, line[i], i, want)
					}
				}
			}
			c.(interface{ CloseWrite() error }).CloseWrite()
			if rest, err := io.ReadAll(r); err != nil || len(rest)%74 != 0 {
				t.Errorf("%d bytes until the end: %v", len(rest), err)
			}
		}
		u := dial(t, h.addr(l, 1))
		buf := make([]byte, 2000)
		for size, want := range map[int]int{1: 1, 74: 74, 512: 512, 513: 512, 1500: 512} {
			u.Write(make([]byte, size))
			if n, err := u.Read(buf); n != want || err != nil || buf[0] != ' ' {
				t.Errorf("%d bytes were answered by %d: %v", size, n, err)
			}
		}
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
	})
}

// A peer that does not read is not sent more than the kernel takes, costs no
// turns of the loop, and does not keep a listener from draining.
func TestChargenNotRead(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Chargen{}, "send_buffer_bytes=16KiB", "tcp://127.0.0.1:0"))
		c := dialSmall(t, h.addr(l, 0))
		var sent uint64
		eventually(t, func() bool { // until nothing is taken any more
			was := sent
			h.until(5 * time.Millisecond)
			sent = h.stats(l).Sent
			return sent > 0 && sent == was
		}, func() string { return "it is sent for ever" })
		if n := h.turns(func() { h.until(30 * time.Millisecond) }); n > 5 {
			t.Errorf("%d turns while nobody reads", n)
		}
		h.do(func() { l.Stop(time.Minute) })
		if all, err := io.ReadAll(c); err != nil || uint64(len(all)) < sent {
			t.Errorf("%d of %d bytes: %v", len(all), sent, err)
		}
		c.Close()
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "does not drain" })
	})
}

// While peers of chargen read as fast as they can, an echo beside it is
// answered, and nothing is allocated.
func TestChargenBeside(t *testing.T) {
	h := newHost(t, "epoll", 0)
	gen, echo := h.open(spec(t, listeners.Chargen{}, "", "tcp4://127.0.0.1:0")), h.open(spec(t, listeners.Echo{}, "", "tcp4://127.0.0.1:0"))
	const readers = 8
	ended := make(chan struct{})
	for range readers {
		fd := rawClient(t, h.status(gen).Bound[0], "")
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}); err != nil {
			t.Fatal(err)
		}
		defer func() { <-ended }()
		defer unix.Shutdown(fd, unix.SHUT_WR)
		go func() {
			defer func() { unix.Close(fd); ended <- struct{}{} }()
			buf := make([]byte, 64<<10)
			for {
				if n, err := unix.Read(fd, buf); n <= 0 && err != unix.EINTR {
					return
				}
			}
		}()
	}
	eventually(t, func() bool { return h.stats(gen).Sent > 1<<20 }, func() string { return "nothing is sent" })
	fd := rawClient(t, h.status(echo).Bound[0], "")
	defer unix.Close(fd)
	ping, buf := bytes.Repeat([]byte("x"), 64), make([]byte, 64)
	var before, after runtime.MemStats
	sent, began := h.stats(gen).Sent, time.Now()
	runtime.ReadMemStats(&before)
	var worst time.Duration
	const rounds = 2000
	for range rounds {
		asked := time.Now()
		exchange(t, fd, ping, buf, len(ping))
		worst = max(worst, time.Since(asked))
	}
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	lines := (h.stats(gen).Sent - sent) / 74
	t.Logf("%d readers: %d lines at %.0f MB/s; beside it an echo takes %v, at worst %v; %d allocations",
		readers, lines, float64(lines*74)/took.Seconds()/1e6, took/rounds, worst, after.Mallocs-before.Mallocs)
	if n := after.Mallocs - before.Mallocs; lines < 1000 || n > lines/100 {
		t.Errorf("%d allocations for %d lines", n, lines)
	}
	if each := took / rounds; each > 10*time.Millisecond {
		t.Errorf("an echo beside it takes %v", each)
	}
}
