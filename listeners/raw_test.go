package listeners_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

const noFCS = "so:SOL_SOCKET:SO_NOFCS"

// A raw option is set, read and given back as any other: on the listener, on
// connections to come, and on those that are open. The kernel is asked by
// another way.
func TestRaw(t *testing.T) {
	dir := shortDir(t)
	for _, uri := range []string{"tcp4://127.0.0.1:0", "tcp6://[::1]:0", "unix://" + dir + "/s", "unixpacket://" + dir + "/p", "udp4://127.0.0.1:0", "unixgram://" + dir + "/g"} {
		t.Run(uri[:strings.Index(uri, "/")-1], func(t *testing.T) {
			h := newHost(t, "epoll", 0)
			l := h.open(spec(t, listeners.Echo{}, "", uri))
			stream := !strings.HasPrefix(uri, "udp") && !strings.HasPrefix(uri, "unixgram")
			kernel := func(fd, want int) {
				t.Helper()
				if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NOFCS); err != nil || n != want {
					t.Errorf("the kernel has %d, %v, not %d", n, err, want)
				}
			}
			fd := h.status(l).Sockets[0].FD
			var old int
			if stream {
				old = h.connOf(dial(t, h.addr(l, 0))).FD
			}
			for _, name := range []string{noFCS, "so:1:43", "so:1:SO_NOFCS"} {
				r := h.tune(l, name, "1")
				if r.Outcome != listeners.Applied || r.Option.Name != noFCS || r.Previous.String() != "0" || r.Effective.String() != "1" {
					t.Fatalf("%s: %+v", name, r)
				}
				kernel(fd, 1)
				if again := h.tune(l, name, "0x01000000"); again.Outcome != listeners.Unchanged {
					t.Errorf("the same as bytes: %+v", again)
				}
				if !stream {
					h.tune(l, name, "")
					continue
				}
				kernel(old, 0)
				fresh := h.connOf(dial(t, h.addr(l, 0))).FD
				kernel(fresh, 1)
				if all := h.tuneConns(l, name, "1"); uint64(len(h.conns())) != all[0].Connections+all[len(all)-1].Connections {
					t.Errorf("connections: %+v", all)
				}
				kernel(old, 1)
				h.tuneConns(l, name, "")
				kernel(old, 0)
				if r := h.tune(l, name, ""); r.Outcome != listeners.Applied || r.Effective.String() != "0" || len(l.Spec().Options) != 0 {
					t.Errorf("given back: %+v", r)
				}
				kernel(fd, 0)
			}
			h.do(func() {
				if got := l.InForce([]string{"so:1:43"}); fmt.Sprint(got) != "map[so:1:43:0]" {
					t.Errorf("in force: %v", got)
				}
			})
		})
	}
}

// A raw option of a spec is there before the socket is bound, and is the same
// after it was saved, by whatever name it was asked.
func TestRawAtStart(t *testing.T) {
	h := newHost(t, "epoll", 0)
	const least, greatest = 40001, 40099 // inside net.ipv4.ip_local_port_range
	s := spec(t, listeners.Echo{}, fmt.Sprintf("so:0:51=%d so:1:SO_NOFCS=1", greatest<<16|least), "tcp4://127.0.0.1:0")
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again listeners.Spec
	if err := json.Unmarshal(text, &again); err != nil || !again.Equal(s) || again.Options[noFCS].Int() != 1 {
		t.Errorf("%s, %v", text, err)
	}
	l := h.open(again)
	if port := h.status(l).Bound[0].IP.Port(); port < least || port > greatest {
		t.Errorf("port %d is not in IP_LOCAL_PORT_RANGE", port)
	}
	if notes := l.Notes(); len(notes) > 0 {
		t.Errorf("%+v", notes)
	}
	if r := h.tune(l, "so:0:51", fmt.Sprint(greatest<<16|least)); r.Outcome != listeners.Unchanged || r.Effective != r.Requested || r.Previous != r.Requested {
		t.Errorf("a number above 2^31: %+v", r)
	}
	h.do(func() {
		if got := l.InForce(nil); got[noFCS].Int() != 1 || uint32(got["so:IPPROTO_IP:IP_LOCAL_PORT_RANGE"].Int()) != greatest<<16|least {
			t.Errorf("in force: %v", got)
		}
	})
}

// Structures are given as bytes. What cannot be read back is said to be so.
func TestRawBytes(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "udp4://127.0.0.1:0"))
	joined := func() bool {
		text, err := os.ReadFile("/proc/net/igmp")
		if err != nil {
			t.Skip(err)
		}
		return strings.Contains(string(text), "426401E0") // as an int of this machine
	}
	const group = "0xe001644200000000" + "01000000" // struct ip_mreqn: 224.1.100.66 on lo
	if joined() {
		t.Skip("another process has joined the group")
	}
	r := h.tune(l, "so:IPPROTO_IP:IP_ADD_MEMBERSHIP", group)
	if r.Outcome != listeners.Applied || r.Effective.Type() != listeners.Null || !strings.Contains(r.Message, "read back") || !joined() {
		t.Errorf("%+v", r)
	}
	if r := h.tune(l, "so:IPPROTO_IP:IP_ADD_MEMBERSHIP", group); r.Outcome != listeners.Failed || r.Errno != "EADDRINUSE" {
		t.Errorf("joined twice: %+v", r)
	}
	h.tune(l, "so:IPPROTO_IP:IP_DROP_MEMBERSHIP", group)
	if joined() {
		t.Error("it is in the group still")
	}
	if r := h.tune(l, "so:IPPROTO_IP:IP_DROP_MEMBERSHIP", ""); r.Outcome != listeners.Failed {
		t.Errorf("there is nothing to give back: %+v", r)
	}
}

// Names that are not good, values that are not, and what harms are refused
// before the kernel is asked, whatever they are called.
func TestRawRefused(t *testing.T) {
	for name, want := range map[string]struct {
		value, says, near string
		reason            listeners.Reason
	}{
		"so:":                           {"1", "so:LEVEL:NAME", "", listeners.OptionUnknown},
		"so::":                          {"1", "so:LEVEL:NAME", "", listeners.OptionUnknown},
		"so:1:2:3":                      {"1", "so:LEVEL:NAME", "", listeners.OptionUnknown},
		"so:SOL_SOKET:SO_MARK":          {"1", "SOL_SOCKET (1)", "so:SOL_SOCKET:SO_MARK", listeners.OptionUnknown},
		"so:999:1":                      {"1", "not a level", "", listeners.OptionUnknown},
		"so:IPPROTO_TCP:TCP_THIN_DUPAK": {"1", "did you mean", "so:IPPROTO_TCP:TCP_THIN_DUPACK", listeners.OptionUnknown},
		"so:6:-1":                       {"1", "nor a number", "", listeners.OptionUnknown},
		"so:6:99999999999":              {"1", "nor a number", "", listeners.OptionUnknown},
		"so:6:%d%s":                     {"1", "nor a number", "", listeners.OptionUnknown},
		"so:6:10":                       {"1", "in the table", "tcp.window_clamp_bytes", listeners.SpecInvalid},
		"so:IPPROTO_IPV6:IPV6_TCLASS":   {"1", "in the table", "traffic_class", listeners.SpecInvalid},
		"so:SOL_TCP:TCP_ULP":            {"0x746c7300", "refused", "", listeners.SpecInvalid},
		"so:6:31":                       {"0x746c7300", "refused", "", listeners.SpecInvalid},
		"so:1:26":                       {"1", "filter", "", listeners.SpecInvalid},
		"so:0:64":                       {"1", "packet filter", "", listeners.SpecInvalid},
		"so:0:1153":                     {"1", "packet filter", "", listeners.SpecInvalid},
		"so:6:9999":                     {"0x01000000", "whole number only", "", listeners.SpecInvalid},
		noFCS:                           {"4294967296", "out of range", "", listeners.SpecInvalid},
		"so:1:43":                       {"0x0", "0x00000100", "", listeners.SpecInvalid},
		"so:SOL_SOCKET:43":              {"0x" + strings.Repeat("00", 257), "bytes", "", listeners.SpecInvalid},
		"so:SOL_SOCKET:SO_PEEK_OFF":     {"much", "whole number", "", listeners.SpecInvalid},
		"so:SOL_SOCKET:SO_DEBUG":        {"0x", "whole number", "", listeners.SpecInvalid},
		"so:IPPROTO_UDP:150":            {"1", "is for udp", "", listeners.SpecInvalid},
	} {
		_, err := listeners.ParseOption(name, listeners.StringValue(want.value), listeners.OnTCP)
		v := listeners.Violations(err)
		if len(v) != 1 || !errors.Is(v[0], want.reason) || !strings.Contains(v[0].Message, want.says) || v[0].Nearest != want.near || v[0].Field != "spec.options."+name {
			t.Errorf("%s=%.20s: %+v", name, want.value, v)
		}
	}
	many := map[string]listeners.Value{}
	for i := range 33 {
		many[fmt.Sprintf("so:6:%d", 1000+i)] = listeners.IntValue(1)
	}
	if _, err := listeners.ParseSpec([]string{"tcp://127.0.0.1:0"}, listeners.Echo{}, many); err == nil || !strings.Contains(err.Error(), "at most 32") {
		t.Error(err)
	}
	twice := map[string]listeners.Value{"so:1:43": listeners.IntValue(1), noFCS: listeners.IntValue(2)}
	if _, err := listeners.ParseSpec([]string{"tcp://127.0.0.1:0"}, listeners.Echo{}, twice); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Error(err)
	}
}

// What the kernel does not know, or does not let be set, is its own refusal.
func TestRawUnsupported(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp4://127.0.0.1:0"))
	for _, name := range []string{"so:1:9999", "so:SOL_SOCKET:SO_PROTOCOL", "so:IPPROTO_TCP:TCP_INFO"} {
		if r := h.tune(l, name, "1"); r.Outcome != listeners.Failed || r.Errno != "ENOPROTOOPT" || !strings.Contains(r.Message, "kernel does not know") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if _, ok := l.Spec().Options["so:SOL_SOCKET:SO_PROTOCOL"]; ok {
		t.Error("what was refused is wanted")
	}
	h.do(func() {
		if got := l.InForce([]string{"so:6:11"})["so:6:11"].String(); !strings.HasPrefix(got, "0x0a") || len(got) < 200 {
			t.Errorf("TCP_INFO of a socket that listens: %s", got)
		}
	})
}

// harmless are raw options that sockmgr knows and does not refuse, at every
// number up to the last that linux/*.h have.
func harmless() (names []string) {
	for level, last := range map[int]int{unix.SOL_SOCKET: 90, unix.IPPROTO_IP: 63, unix.IPPROTO_TCP: 60, unix.IPPROTO_UDP: 110, unix.IPPROTO_IPV6: 85} {
		for n := 1; n <= last; n++ {
			if o := listeners.LookupOption(fmt.Sprintf("so:%d:%d", level, n)); o != nil {
				names = append(names, o.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// No raw option that is let pass breaks the daemon: with whatever value, what
// is open goes on, and once it is given back, so does what is new.
func TestRawHarmless(t *testing.T) {
	if n := len(harmless()); n < 60 {
		t.Errorf("%d only", n)
	}
	for _, uri := range []string{"tcp4://127.0.0.1:0", "tcp6://[::1]:0", "udp4://127.0.0.1:0", "udp6://[::1]:0", "unix://" + shortDir(t) + "/s"} {
		t.Run(uri[:strings.Index(uri, "/")-1], func(t *testing.T) {
			h := newHost(t, "epoll", 0)
			l := h.open(spec(t, listeners.Echo{}, "", uri))
			c := dial(t, h.addr(l, 0))
			ask(t, c, []byte("first"))
			for _, name := range harmless() {
				if _, err := listeners.ParseOption(name, listeners.IntValue(1), l.Spec().Class()); err != nil {
					continue
				}
				for _, v := range []int{0, 1, math.MaxInt32, -1} {
					r := h.tune(l, name, fmt.Sprint(v))
					if _, udp := c.(*net.UDPConn); !udp {
						h.tuneConns(l, name, fmt.Sprint(v))
					}
					if !echoes(t, c) {
						t.Errorf("%s=%d: no echo: %+v", name, v, r)
					}
				}
				h.tune(l, name, "")
				h.tuneConns(l, name, "")
				fresh := dial(t, h.addr(l, 0))
				if !echoes(t, fresh) {
					t.Errorf("%s: given back, no echo", name)
				}
				fresh.Close()
			}
		})
	}
}

func echoes(t *testing.T, c net.Conn) bool {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	_, err := io.WriteString(c, "ping")
	if err == nil {
		_, err = io.ReadFull(c, got)
	}
	if err != nil || string(got) != "ping" {
		t.Logf("%q, %v", got, err)
		return false
	}
	return true
}
