package listeners

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a TCP connection: ours, and the peer.
func pair(t *testing.T) (fd int, ours, peer *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); a.Close() })
	ours, peer = a.(*net.TCPConn), c.(*net.TCPConn)
	return rawFD(t, ours), ours, peer
}

func rawFD(t *testing.T, c *net.TCPConn) (fd int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(p uintptr) { fd = int(p) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// until waits for what the kernel does in its own time.
func until(t *testing.T, fd int, want positions) {
	t.Helper()
	var got positions
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if got, err = positionsOf(fd); err == nil && got == want {
			return
		}
	}
	t.Errorf("the kernel has %+v, not %+v: %v", got, want, err)
}

// The kernel's counts are those of the process, through all states of a
// connection: bytes that wait on either side are not counted, nor are FINs; the SYN
// of one that was connected is, from the beginning on.
func TestPositions(t *testing.T) {
	for _, connected := range []bool{false, true} {
		for _, first := range []string{"peer", "us", "reset"} {
			fd, ours, peer := pair(t)
			if connected {
				ours, peer = peer, ours
				fd = rawFD(t, ours)
			}
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
			base, err := positionsOf(fd)
			if err != nil {
				t.Fatal(err)
			}
			want := func(consumed, written uint64) {
				t.Helper()
				until(t, fd, positions{consumed: base.consumed + consumed, written: base.written + written})
			}
			buf := make([]byte, 100)
			io.WriteString(peer, "0123456789")
			if err := unix.Sendto(rawFD(t, peer), []byte("!"), unix.MSG_OOB, nil); err != nil {
				t.Fatal(err)
			}
			io.ReadFull(ours, buf[:4])
			io.WriteString(ours, "abc")
			want(4, 3)
			switch first {
			case "peer":
				peer.CloseWrite()
				want(4, 3)
				io.ReadFull(ours, buf[:7])
				want(11, 3)
				ours.Read(buf) // the end
				want(11, 3)
				io.WriteString(ours, "defg")
				ours.CloseWrite()
				want(11, 7)
				io.Copy(io.Discard, peer)
				want(11, 7)
			case "us":
				ours.CloseWrite()
				want(4, 3)
				io.WriteString(peer, "more")
				io.Copy(io.Discard, peer)
				want(4, 3)
				peer.CloseWrite()
				want(4, 3) // both have finished, and 11 bytes wait
				io.ReadFull(ours, buf[:11])
				want(15, 3)
			case "reset":
				peer.SetLinger(0)
				peer.Close()
				broken := false
				for end := time.Now().Add(10 * time.Second); !broken && time.Now().Before(end); {
					p, err := positionsOf(fd)
					broken = err == nil && p.broken
				}
				if !broken {
					t.Error("a reset is not seen")
				}
			}
		}
	}
}

func testSlot(tb testing.TB) slot {
	tb.Helper()
	a, err := newArena(3)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(a.close)
	return slot{a, 5}
}

// What is written to a slot is read again, also by another process.
func TestRecords(t *testing.T) {
	s := testSlot(t)
	fixed := lasting{
		cookie: 1 << 60, listener: "web", kind: "http", config: 7, remote: netip.MustParseAddrPort("[fe80::1%3]:80"),
		opened: 12, v6: true, consumed: 1<<64 - 5, written: 9,
	}
	up := beyond{
		cookie: 3, consumed: 4, written: 5, from: 6, sent: 7, pool: 2, address: "tcp://" + strings.Repeat("a", 250) + ":80",
		server: strings.Repeat("b", 253), header: make([]byte, 107),
	}
	now := moment{used: 10, sent: 11, half: 1, offset: 12, ended: true, opened: true, reads: 13, writes: 14, state: []byte("state")}
	if !s.putRecord(recordFixed, &fixed) || !s.putRecord(recordUpstream, &up) || !s.putRecord(recordMoments+recordSize, &now) {
		t.Fatal("there is no room")
	}
	fd, err := unix.Dup(s.fd)
	if err != nil {
		t.Fatal(err)
	}
	again, err := oldArena(3, fd)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	other := slot{again, 5}
	var gotFixed lasting
	var gotUp beyond
	var gotNow moment
	read := func(at int, decode func([]byte) error) {
		t.Helper()
		b, err := other.record(at)
		if err == nil {
			err = decode(b)
		}
		if err != nil {
			t.Error(err)
		}
	}
	read(recordFixed, gotFixed.decode)
	read(recordUpstream, gotUp.decode)
	read(recordMoments+recordSize, gotNow.decode)
	if gotFixed != fixed || !reflect.DeepEqual(gotUp, up) || !reflect.DeepEqual(gotNow, now) {
		t.Errorf("%+v\n%+v\n%+v", gotFixed, gotUp, gotNow)
	}
	s.bytes()[recordFixed+20] ^= 1
	if _, err := other.record(recordFixed); !errors.Is(err, errTorn) {
		t.Error("a bit that was flipped is not found")
	}
	if err := unix.Ftruncate(fd, 0); err == nil {
		t.Error("the memory can be taken away")
	}
}

// An arena that is none is refused.
func TestArenaRefuses(t *testing.T) {
	for _, size := range []int64{0, 4096, arenaSize} {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Ftruncate(fd, size)
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
		if _, err := oldArena(0, fd); err == nil {
			t.Errorf("%d bytes of nothing are taken for an arena", size)
		}
		unix.Close(fd)
	}
}

// Whatever a slot has in it, what is made of it is an error, or stays in bounds.
func FuzzSlot(f *testing.F) {
	f.Add([]byte{}, uint64(0), uint64(0), uint64(0), true)
	now := moment{used: 10, sent: 11, half: 1, offset: 12, opened: true, state: (&httpConn{served: true}).encode(nil)}
	f.Add(now.encode(nil), uint64(20), uint64(5), uint64(11), false)
	fixed := lasting{listener: "web", kind: "http", remote: netip.MustParseAddrPort("127.0.0.1:80")}
	f.Add(fixed.encode(nil), uint64(1), uint64(2), uint64(3), false)
	up := beyond{address: "tcp://a:1", header: []byte("PROXY")}
	f.Add(up.encode(nil), uint64(1<<63), uint64(1), uint64(1<<63+9), false)
	s := testSlot(f)
	f.Fuzz(func(t *testing.T, data []byte, received, begins, written uint64, torn bool) {
		b := s.bytes()[:slotHead]
		clear(b)
		if torn { // as they are
			copy(b, data)
		} else {
			for _, at := range []int{recordFixed, recordUpstream, recordMoments, recordMoments + recordSize} {
				s.putRecord(at, raw(data[:min(len(data), recordData)]))
			}
		}
		d := &durable{slot: s}
		if err := d.read(); err == nil {
			c := SavedConn{Received: received, Sent: written}
			if d.rewind(&c, true) == nil && !d.ended {
				_ = d.unused(&conn{received: received})
				_ = d.room(&conn{received: received, l: &Listener{}})
			}
			one := &httpConn{h: (&HTTP{Body: []byte("x")}).New().(*httpHandler)}
			if one.decode(d.state) == nil {
				_, _ = one.req.read([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), &Tunables{ReadBuffer: 64 << 10, MaxRequestBody: 1 << 20})
			}
		}
		for at, decode := range map[int]func([]byte) error{recordFixed: new(lasting).decode, recordUpstream: new(beyond).decode} {
			if b, err := s.record(at); err == nil {
				_ = decode(b)
			}
		}
		if rest, err := flowRest(s.buffer(0), begins, written, received); err == nil && uint64(len(rest)) != received-written {
			t.Errorf("from %d to %d there are %d bytes", written, received, len(rest))
		}
	})
}

// raw is a record that says what it is given.
type raw []byte

func (r raw) encode(b []byte) []byte { return append(b, r...) }

// A listener of which no connection could be durable does not take the option; one
// of which some can does.
func TestDurabilityIsRefused(t *testing.T) {
	want := map[string]Value{durabilityOption: StringValue("connections")}
	inThread := func(s Spec) (Spec, error) { return s.WithConcurrency(InThread) }
	for _, tt := range []struct {
		handler HandlerSpec
		uri     string
		change  func(Spec) (Spec, error)
		taken   bool
	}{
		{handler: Echo{}, uri: "tcp://127.0.0.1:0", taken: true},
		{handler: &HTTP{}, uri: "tcp://127.0.0.1:0", taken: true},
		{handler: Echo{}, uri: "unix:///tmp/s"},
		{handler: Echo{}, uri: "udp://127.0.0.1:0"},
		{handler: &Handoff{}, uri: "tcp://127.0.0.1:0"},
		{handler: &Chargen{}, uri: "tcp://127.0.0.1:0"},
		{handler: Echo{}, uri: "tcp://127.0.0.1:0", change: inThread},
	} {
		s, err := ParseSpec([]string{tt.uri}, tt.handler, want)
		if err == nil && tt.change != nil {
			_, err = tt.change(s)
		}
		if (err == nil) != tt.taken || err != nil && !strings.Contains(err.Error(), "spec.options.durability") {
			t.Errorf("%s on %s: %v", tt.handler.Kind(), tt.uri, err)
		}
	}
	if _, err := ParseSpec([]string{"tcp://127.0.0.1:0", "unix:///tmp/s"}, Echo{}, want); err != nil {
		t.Error(err) // it is for one of the two
	}
}
