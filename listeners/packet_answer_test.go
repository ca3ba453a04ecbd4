package listeners_test

import (
	"encoding/binary"
	"fmt"
	"net"
	stdnetip "net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

func rejected(counters func() listeners.Counters, why listeners.Rejection) uint64 {
	return counters().RejectedBy[why]
}

// An answer is not longer than what it answers, unless the operator says so.
func TestDatagramNotAmplified(t *testing.T) {
	h := newHost(t, "epoll", 0)
	long := make([]byte, 1000)
	for name, c := range map[string]struct {
		handler listeners.HandlerSpec
		options string
		ask     int
		want    int // 0: no answer
	}{
		"small":    {&listeners.Reply{Payload: []byte("well")}, "", 0, 4},
		"longer":   {&listeners.Reply{Payload: long}, "", 999, 0},
		"as long":  {&listeners.Reply{Payload: long}, "", 1000, 1000},
		"told so":  {&listeners.Reply{Payload: long}, "udp.max_reply_bytes=1000", 1, 1000},
		"strictly": {&listeners.Reply{Payload: []byte("well")}, "udp.max_reply_bytes=0", 3, 0},
		"echo":     {listeners.Echo{}, "udp.max_reply_bytes=0", 1400, 1400},
		"chargen":  {listeners.Chargen{}, "udp.max_reply_bytes=0", 100, 100},
		"time":     {listeners.Time{}, "", 0, 4},
		"daytime":  {listeners.Daytime{}, "", 0, 26},
	} {
		t.Run(name, func(t *testing.T) {
			l, counters := h.openCounted(spec(t, c.handler, c.options, "udp://127.0.0.1:0"))
			conn := dial(t, h.addr(l, 0))
			defer conn.Close()
			if _, err := conn.Write(make([]byte, c.ask)); err != nil {
				t.Fatal(err)
			}
			if c.want == 0 {
				eventually(t, func() bool { return rejected(counters, listeners.RejectedAmplifies) == 1 }, func() string { return "answered" })
				return
			}
			if got := receive(t, conn); len(got) != c.want {
				t.Errorf("%d bytes, want %d", len(got), c.want)
			}
		})
	}
}

// A network that asks too often is not answered any more for a while.
func TestDatagramReplyRate(t *testing.T) {
	var here stdnetip.Addr
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := stdnetip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			here = p.Addr()
		}
	}
	if !here.IsValid() {
		t.Skip("SKIPPED: there is no address but that of loopback, from which answers are not counted")
	}
	h := newHost(t, "epoll", 0)
	l, counters := h.openCounted(spec(t, listeners.Echo{}, "udp.reply_rate=5", fmt.Sprintf("udp4://%v:0", here)))
	conn := dial(t, h.addr(l, 0))
	defer conn.Close()
	began := time.Now()
	for range 100 {
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return h.stats(l).Received == 100 }, func() string { return "not received" })
	most := 5 + 5*time.Since(began).Seconds() + 1
	if n := 100 - float64(rejected(counters, listeners.RejectedReplyRate)); n < 5 || n > most {
		t.Errorf("%v answers, at most %v", n, most)
	}
	again := dial(t, h.addr(l, 0)) // the network is the same
	defer again.Close()
	eventually(t, func() bool {
		if _, err := again.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		_ = again.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		n, _ := again.Read(make([]byte, 10))
		return n == 1
	}, func() string { return "never answered again" })
}

// A rawSender sends datagrams of UDP whose sender it chooses.
type rawSender struct {
	t  *testing.T
	fd int
}

func newRawSender(t *testing.T) *rawSender {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) // has IP_HDRINCL
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &rawSender{t, fd}
}

func (r *rawSender) send(from, to stdnetip.AddrPort, data string) {
	r.t.Helper()
	p := make([]byte, 28, 28+len(data))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(data)))
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(data)))
	if err := unix.Sendto(r.fd, append(p, data...), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
		r.t.Fatal(err)
	}
}

// What is forged for real: from networks that are elsewhere, and from addresses
// that are many.
func TestDatagramForgedSource(t *testing.T) {
	needRoot(t) // TestDatagramReplyRate and TestNoEndlessAnswers need no root
	h := newHost(t, "epoll", 0)
	l, counters := h.openCounted(spec(t, listeners.Echo{}, "udp.reply_rate=5", "udp4://127.0.0.1:0"))
	to := h.addr(l, 0).(*net.UDPAddr).AddrPort()
	raw := newRawSender(t)
	received := uint64(0)
	send := func(from string, count int) {
		t.Helper()
		for range count {
			raw.send(stdnetip.MustParseAddrPort(from), to, "x")
		}
		received += uint64(count)
		eventually(t, func() bool { return h.stats(l).Received == received }, func() string { return fmt.Sprintf("from %s: %+v", from, h.stats(l)) })
	}
	send("198.51.100.7:5000", 20)
	send("198.51.100.8:5001", 20) // of the same network
	limited := rejected(counters, listeners.RejectedReplyRate)
	if limited < 30 || limited > 35 {
		t.Errorf("%d of 40 were not answered", limited)
	}
	send("203.0.113.1:5000", 1) // of another
	if n := rejected(counters, listeners.RejectedReplyRate); n != limited {
		t.Error("another network is not answered")
	}
	for i, from := range []string{"127.0.0.1:7", fmt.Sprintf("198.18.0.1:%d", to.Port()), "255.255.255.255:5000", "224.0.0.1:5000"} {
		send(from, 1)
		if n := rejected(counters, listeners.RejectedUnanswerable); n != uint64(i+1) {
			t.Errorf("%s is answered: %d", from, n)
		}
	}
	before := h.stats(l).Sent
	send("127.255.255.255:5000", 1) // the kernel knows that it is a broadcast address, and refuses
	if h.stats(l).Sent != before || rejected(counters, listeners.RejectedSend) == 0 {
		t.Errorf("a broadcast address is answered: %+v", h.stats(l))
	}
}
