package listeners_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// probeMulticastInterface reads 1, the index of lo, also where the kernel tells
// the address.
func probeMulticastInterface() probe {
	p := intProbe("lo", "lo", 1, unix.IPPROTO_IP, unix.IP_MULTICAST_IF)
	get := p.get
	p.get = func(fd int) (int64, error) {
		if isIPv6(fd) {
			n, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF)
			return int64(n), err
		}
		n, err := get(fd)
		if n == 0x0100007f { // 127.0.0.1 as an int of this machine
			n = 1
		}
		return n, err
	}
	return p
}

// members reads who is in a group on lo as any process sees it.
func members(t *testing.T, hex string) bool {
	t.Helper()
	file := "/proc/net/igmp"
	if len(hex) > 8 {
		file = "/proc/net/igmp6"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Skip(err)
	}
	on := ""
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 2 && strings.HasSuffix(file, "igmp") && line[0] != '\t' {
			on = f[1]
		}
		if strings.Contains(line, hex) && (on == "lo" || strings.Contains(line, " lo ")) {
			return true
		}
	}
	return false
}

// Groups are joined and left while the listener runs; a datagram to one that is
// joined arrives and is answered from an address of this host.
func TestMulticastGroups(t *testing.T) {
	for _, tt := range []struct{ uri, client, group, hex, other string }{
		{"udp4://0.0.0.0:0", "127.0.0.1", "239.77.1.2", "02014DEF", "239.77.1.3"},
		{"udp6://[::]:0", "::1", "ff01::77:2", "ff010000000000000000000000770002", "ff01::77:3"},
		{"udp://[::]:0", "127.0.0.1", "239.77.1.4", "04014DEF", "ff01::77:5"},
	} {
		t.Run(tt.uri, func(t *testing.T) {
			h := newHost(t, "epoll", 0)
			l := h.open(spec(t, listeners.Echo{}, "ip.multicast_all=false", tt.uri))
			group, other := tt.group+"%lo", tt.other+"%lo"
			port := h.addr(l, 0).(*net.UDPAddr).Port
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(tt.client)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			raw, err := c.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) {
				if tt.client == "::1" {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, 1)
				} else {
					err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: 1})
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			tune := func(value string, outcome listeners.Outcome, effective string) {
				t.Helper()
				if r := h.tune(l, "ip.multicast_groups", value); r.Outcome != outcome || r.Effective.String() != effective {
					t.Errorf("%q: %+v", value, r)
				}
			}
			tune(group, listeners.Applied, group)
			tune(" "+group+",", listeners.Unchanged, group)
			if !members(t, tt.hex) {
				t.Error("/proc/net/igmp does not have the group")
			}
			if _, err := c.WriteTo([]byte("to the group"), &net.UDPAddr{IP: net.ParseIP(tt.group), Port: port, Zone: zoneOf(tt.client)}); err == nil {
				buf := make([]byte, 100)
				c.SetDeadline(time.Now().Add(20 * time.Second))
				n, from, err := c.ReadFromUDP(buf)
				if err != nil || string(buf[:n]) != "to the group" || from.Port != port || from.IP.IsMulticast() {
					t.Errorf("%q from %v, %v", buf[:n], from, err)
				}
			} else if !errors.Is(err, unix.ENETUNREACH) || tt.client != "::1" { // most hosts have no route for IPv6 groups on lo
				t.Error(err)
			}
			tune(group+" "+other, listeners.Applied, group+","+other)
			tune(other, listeners.Applied, other)
			if members(t, tt.hex) {
				t.Error("it is still in a group that was left")
			}
			tune("", listeners.Applied, "")
		})
	}
}

func zoneOf(client string) string {
	if client == "::1" {
		return "lo"
	}
	return ""
}

// Groups of the spec are there from the start, and are saved with it. When one
// of several cannot be joined, the socket is in those of before.
func TestMulticastGroupsKept(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Discard{}, "ip.multicast_groups=239.77.2.1%lo", "udp4://0.0.0.0:0"))
	inForce := func(want string) {
		t.Helper()
		h.do(func() {
			if got := l.InForce([]string{"ip.multicast_groups"}); fmt.Sprint(got) != "map[ip.multicast_groups:"+want+"]" {
				t.Errorf("in force: %v", got)
			}
		})
	}
	inForce("239.77.2.1%lo")
	if notes := l.Notes(); len(notes) > 0 {
		t.Errorf("%+v", notes)
	}
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("239.77.3.%d%%lo", i))
	}
	for value, want := range map[string]struct{ errno, says string }{
		"239.77.2.2%lo,ff01::1%lo":     {"EAFNOSUPPORT", "listener of its own"},
		"239.77.2.2%lo,239.77.2.3%no0": {"ENODEV", "no0"},
		strings.Join(many, ","):        {"ENOBUFS", "igmp_max_memberships"},
	} {
		r := h.tune(l, "ip.multicast_groups", value)
		if r.Outcome != listeners.Failed || r.Errno != want.errno || !strings.Contains(r.Message, want.says) {
			t.Errorf("%.40s: %+v", value, r)
		}
		inForce("239.77.2.1%lo")
	}
	for _, value := range []string{"127.0.0.1", "239.1.2.3%", "no", "::ffff:239.1.2.3", "239.1.2.3%" + strings.Repeat("x", 16)} {
		if _, err := listeners.ParseOption("ip.multicast_groups", listeners.StringValue(value), listeners.OnUDP); err == nil {
			t.Errorf("%s is taken", value)
		}
	}
	if r := h.tune(l, "ip.multicast_interface", "no0"); r.Errno != "ENODEV" {
		t.Errorf("%+v", r)
	}
}
