package listeners_test

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// A probe is one option of a socket as the kernel's own calls have it, written
// down a second time on purpose.
type probe struct {
	ask       string // other than the default
	effective string // what is read back
	kernel    int64  // the same, as get returns it
	get       func(fd int) (int64, error)
	set       func(fd int, v int64) error
	child     int64 // what a new connection has, where that is another number
	restless  bool  // the kernel changes it on connections by itself
}

func intOption(level, number int) (func(int) (int64, error), func(int, int64) error) {
	get := func(fd int) (int64, error) {
		n, err := unix.GetsockoptInt(fd, level, number)
		return int64(n), err
	}
	set := func(fd int, v int64) error { return unix.SetsockoptInt(fd, level, number, int(v)) }
	return get, set
}

func intProbe(ask, effective string, kernel int64, level, number int) probe {
	get, set := intOption(level, number)
	return probe{ask: ask, effective: effective, kernel: kernel, get: get, set: set}
}

// probes has a line for every row of the table that is about sockets, but for
// the backlog, the mode and the groups.
var probes = map[string]probe{
	"receive_buffer_bytes":   intProbe("50000", "100000", 100000, unix.SOL_SOCKET, unix.SO_RCVBUF),
	"send_buffer_bytes":      restless("50000", "100000", 100000, unix.SOL_SOCKET, unix.SO_SNDBUF),
	"traffic_class":          twinProbe("72", "72", 72, unix.IP_TOS, unix.IPV6_TCLASS),
	"linger":                 {"3s", "3s", 3, getLinger, setLinger, 0, false},
	"reuse_port":             intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_REUSEPORT),
	"tcp.no_delay":           intProbe("false", "false", 0, unix.IPPROTO_TCP, unix.TCP_NODELAY),
	"tcp.keepalive":          intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_KEEPALIVE),
	"tcp.keepalive_idle":     intProbe("100s", "1m40s", 100, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
	"tcp.keepalive_interval": intProbe("7s", "7s", 7, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL),
	"tcp.keepalive_count":    intProbe("3", "3", 3, unix.IPPROTO_TCP, unix.TCP_KEEPCNT),
	"tcp.user_timeout":       intProbe("1500ms", "1.5s", 1500, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT),
	"tcp.defer_accept":       intProbe("3s", "3s", 3, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT),

	"receive_buffer_force_bytes": withSet(intProbe("50000", "100000", 100000, unix.SOL_SOCKET, unix.SO_RCVBUF), unix.SO_RCVBUFFORCE),
	"send_buffer_force_bytes":    withSet(restless("50000", "100000", 100000, unix.SOL_SOCKET, unix.SO_SNDBUF), unix.SO_SNDBUFFORCE),
	"buffer_lock":                intProbe("both", "both", 3, unix.SOL_SOCKET, unix.SO_BUF_LOCK),
	"incoming_cpu":               restless("77", "77", 77, unix.SOL_SOCKET, unix.SO_INCOMING_CPU),
	"receive_low_water_bytes":    intProbe("2", "2", 2, unix.SOL_SOCKET, unix.SO_RCVLOWAT),
	"max_pacing_rate":            intProbe("100000000", "100000000", 100000000, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE),
	"priority":                   intProbe("5", "5", 5, unix.SOL_SOCKET, unix.SO_PRIORITY),
	"mark":                       intProbe("7", "7", 7, unix.SOL_SOCKET, unix.SO_MARK),
	"busy_poll":                  intProbe("50us", "50µs", 50, unix.SOL_SOCKET, unix.SO_BUSY_POLL),
	"prefer_busy_poll":           intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL),
	"dont_route":                 intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_DONTROUTE),
	"oob_inline":                 intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_OOBINLINE),
	"broadcast":                  intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_BROADCAST),
	"no_checksum":                intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_NO_CHECK),
	"transmit_rehash":            intProbe("0", "0", 0, unix.SOL_SOCKET, unix.SO_TXREHASH),
	"zero_copy":                  intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_ZEROCOPY),
	"reuse_address":              intProbe("false", "false", 0, unix.SOL_SOCKET, unix.SO_REUSEADDR),
	"bind_to_device":             intProbe("lo", "lo", 1, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX),
	"unix.pass_credentials":      intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_PASSCRED),
	"unix.pass_rights":           intProbe("false", "false", 0, unix.SOL_SOCKET, unix.SO_PASSRIGHTS),

	"ip.hop_limit":             twinProbe("33", "33", 33, unix.IP_TTL, unix.IPV6_UNICAST_HOPS),
	"ip.min_hop_limit":         twinProbe("5", "5", 5, unix.IP_MINTTL, unix.IPV6_MINHOPCOUNT),
	"ip.mtu_discover":          twinProbe("probe", "probe", 3, unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER),
	"ip.free_bind":             twinProbe("true", "true", 1, unix.IP_FREEBIND, unix.IPV6_FREEBIND),
	"ip.transparent":           twinProbe("true", "true", 1, unix.IP_TRANSPARENT, unix.IPV6_TRANSPARENT),
	"ip.multicast_hop_limit":   twinProbe("3", "3", 3, unix.IP_MULTICAST_TTL, unix.IPV6_MULTICAST_HOPS),
	"ip.multicast_loop":        twinProbe("false", "false", 0, unix.IP_MULTICAST_LOOP, unix.IPV6_MULTICAST_LOOP),
	"ip.multicast_all":         probeMulticastAll(),
	"ip.multicast_interface":   probeMulticastInterface(),
	"ip6.auto_flow_label":      intProbe("false", "false", 0, unix.IPPROTO_IPV6, unix.IPV6_AUTOFLOWLABEL),
	"ip6.dont_fragment":        intProbe("true", "true", 1, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG),
	"udp.segment_bytes":        intProbe("1000", "1000", 1000, unix.IPPROTO_UDP, unix.UDP_SEGMENT),
	"udp6.no_checksum_send":    intProbe("true", "true", 1, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX),
	"udp6.no_checksum_receive": intProbe("true", "true", 1, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX),

	"tcp.congestion":               {"reno", "reno", 1, getReno, setReno, 0, false},
	"tcp.cork":                     intProbe("true", "true", 1, unix.IPPROTO_TCP, unix.TCP_CORK),
	"tcp.quick_ack":                restless("false", "false", 0, unix.IPPROTO_TCP, unix.TCP_QUICKACK),
	"tcp.max_segment_bytes":        withChild(intProbe("1000", "1000", 1000, unix.IPPROTO_TCP, unix.TCP_MAXSEG), 988), // less timestamps
	"tcp.window_clamp_bytes":       restless("50000", "50000", 50000, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP),
	"tcp.not_sent_low_water_bytes": intProbe("5000", "5000", 5000, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT),
	"tcp.syn_count":                intProbe("3", "3", 3, unix.IPPROTO_TCP, unix.TCP_SYNCNT),
	"tcp.fin_timeout":              intProbe("30s", "30s", 30, unix.IPPROTO_TCP, unix.TCP_LINGER2),
	"tcp.fast_open":                intProbe("5", "5", 5, unix.IPPROTO_TCP, unix.TCP_FASTOPEN),
	"tcp.fast_open_no_cookie":      intProbe("true", "true", 1, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE),
	"tcp.save_syn":                 intProbe("1", "1", 1, unix.IPPROTO_TCP, unix.TCP_SAVE_SYN),
	"tcp.thin_linear_timeouts":     intProbe("true", "true", 1, unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS),
	"tcp.transmit_delay":           intProbe("1ms", "1ms", 1000, unix.IPPROTO_TCP, unix.TCP_TX_DELAY),
	"tcp.rto_max":                  intProbe("10s", "10s", 10000, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS),
	"tcp.rto_min":                  intProbe("100ms", "100ms", 100000, unix.IPPROTO_TCP, unix.TCP_RTO_MIN_US),
	"tcp.delayed_ack_max":          intProbe("100ms", "100ms", 100000, unix.IPPROTO_TCP, unix.TCP_DELACK_MAX_US),
}

func restless(ask, effective string, kernel int64, level, number int) probe {
	p := intProbe(ask, effective, kernel, level, number)
	p.restless = true
	return p
}

// probeMulticastAll does not want twins: on a new IPv6 socket the option for
// IPv4 is off, the one for IPv6 on.
func probeMulticastAll() probe {
	p := intProbe("false", "false", 0, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL)
	v4, _ := intOption(unix.IPPROTO_IP, unix.IP_MULTICAST_ALL)
	v6, _ := intOption(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL)
	p.get = func(fd int) (int64, error) {
		if isIPv6(fd) {
			return v6(fd)
		}
		return v4(fd)
	}
	return p
}

func withSet(p probe, number int) probe {
	_, p.set = intOption(unix.SOL_SOCKET, number)
	return p
}

func withChild(p probe, child int64) probe {
	p.child = child
	return p
}

// twinProbe wants an IPv6 socket, which may serve IPv4 too, to say the same of
// both.
func twinProbe(ask, effective string, kernel int64, v4, v6 int) probe {
	p := intProbe(ask, effective, kernel, unix.IPPROTO_IP, v4)
	get := p.get
	p.get = func(fd int) (int64, error) {
		n, err := get(fd)
		if err != nil || !isIPv6(fd) {
			return n, err
		}
		m, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, v6)
		if int64(m) != n {
			return 0, fmt.Errorf("the option for IPv4 is %d, for IPv6 %d: %w", n, m, err)
		}
		return n, err
	}
	return p
}

func getReno(fd int) (int64, error) {
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if name == "reno" {
		return 1, err
	}
	return 0, err
}

func setReno(fd int, _ int64) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
}

func isIPv6(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && n == unix.AF_INET6
}

// getLinger returns the seconds, -1 when it is off.
func getLinger(fd int) (int64, error) {
	var l unix.Linger
	size := uint32(unsafe.Sizeof(l))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&l)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, errno
	}
	if l.Onoff == 0 {
		return -1, nil
	}
	return int64(l.Linger), nil
}

func setLinger(fd int, v int64) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(v)})
}

// onChild is what a connection has from its listener.
func (p probe) onChild() int64 {
	if p.child != 0 {
		return p.child
	}
	return p.kernel
}

// kernelSays reads an option through a descriptor of its own.
func (p probe) kernelSays(t *testing.T, fd int) int64 {
	t.Helper()
	dup, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	n, err := p.get(dup)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// conns returns what is open, full.
func (h *host) conns() (all []listeners.ConnStatus) {
	h.t.Helper()
	h.everywhere(func(set *listeners.Set) {
		for next := 0; next >= 0; {
			var some []listeners.ConnStatus
			some, next = set.Conns(listeners.ConnQuery{Listener: "test", Detail: listeners.DetailFull}, next, 1000)
			all = append(all, some...)
		}
	})
	return all
}

// connOf is the server's end of a connection that has been used.
func (h *host) connOf(c net.Conn) listeners.ConnStatus {
	h.t.Helper()
	ask(h.t, c, []byte("xx")) // one byte is below receive_low_water_bytes
	newest := listeners.ConnStatus{}
	for _, st := range h.conns() {
		if st.Opened.After(newest.Opened) {
			newest = st
		}
	}
	return newest
}

func (h *host) tune(l *listeners.Listener, option, value string) (r listeners.Result) {
	h.t.Helper()
	v, err := listeners.ParseOption(option, listeners.StringValue(value), l.Spec().Class())
	if value == "" {
		v, err = listeners.Value{}, nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.do(func() { r = l.Tune(listeners.LookupOption(option), v) })
	return r
}

func (h *host) tuneConns(l *listeners.Listener, option, value string) (results []listeners.Result) {
	h.t.Helper()
	v, err := listeners.ParseOption(option, listeners.StringValue(value), l.Spec().Class())
	if value == "" {
		v, err = listeners.Value{}, nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	o := listeners.LookupOption(option)
	h.everywhere(func(set *listeners.Set) {
		for next := 0; next >= 0; {
			results, next = set.TuneConns(l, o, v, next, results)
		}
	})
	return results
}

// tableURIs has one address for each way in which a socket of a network may
// be made.
func tableURIs(t *testing.T) map[listeners.Network][]string {
	dir := shortDir(t)
	return map[listeners.Network][]string{
		listeners.TCP:        {"tcp4://127.0.0.1:0", "tcp6://[::1]:0", "tcp://[::]:0"},
		listeners.UDP:        {"udp4://127.0.0.1:0", "udp6://[::1]:0", "udp://[::]:0"},
		listeners.Unix:       {"unix://" + dir + "/s"},
		listeners.Unixgram:   {"unixgram://" + dir + "/g"},
		listeners.Unixpacket: {"unixpacket://" + dir + "/p"},
	}
}

// TestOptionTable walks through every row of the table, on every network that
// the row claims: it is set, changed and taken back on a live listener, and
// each time the kernel is asked by another way. What is set shows on new
// connections, and on open ones once they are told.
func TestOptionTable(t *testing.T) {
	uris := tableURIs(t)
	for _, o := range listeners.Options {
		p, ok := probes[o.Name]
		if !o.OnSocket() || o.Name == "backlog" || o.Name == "unix.mode" || o.Name == "ip.multicast_groups" { // they have tests of their own
			continue
		}
		if !ok {
			t.Errorf("no probe for %s", o.Name)
			continue
		}
		for _, n := range o.Networks.Networks() {
			for _, uri := range uris[n] {
				t.Run(o.Name+"/"+uri[:strings.Index(uri, "/")-1]+strings.Repeat("-dual", strings.Count(uri, "[::]")), func(t *testing.T) {
					if o.Capability != "" {
						needRoot(t)
					}
					h := newHost(t, "epoll", 0)
					l := h.open(spec(t, listeners.Echo{}, "", uri))
					if strings.Contains(o.Name, "6.") && !isIPv6(h.status(l).Sockets[0].FD) {
						if r := h.tune(l, o.Name, p.ask); r.Outcome != listeners.Unchanged || r.Message == "" {
							t.Errorf("on IPv4: %+v", r)
						}
						return
					}
					tableRow(t, h, l, o, p)
				})
			}
		}
	}
}

func tableRow(t *testing.T, h *host, l *listeners.Listener, o *listeners.Option, p probe) {
	fd := h.status(l).Sockets[0].FD
	def := p.kernelSays(t, fd)
	if def == p.kernel {
		t.Fatalf("%d is the default already", def)
	}
	check := func(step string, r listeners.Result, outcome listeners.Outcome, previous, effective string) {
		t.Helper()
		if r.Outcome != outcome || r.Previous.String() != previous || r.Effective.String() != effective || r.Errno != "" {
			t.Errorf("%s: outcome %d, was %v, is %v, want outcome %d, %s, %s", step, r.Outcome, r.Previous, r.Effective, outcome, previous, effective)
		}
	}
	kernel := func(step string, fd int, want int64) {
		t.Helper()
		if got := p.kernelSays(t, fd); got != want {
			t.Errorf("%s: the kernel has %d, want %d", step, got, want)
		}
	}
	probed, supported := o.Probe()
	was := l.InForce([]string{o.Name})[o.Name].String()
	if o.Default.Type() != listeners.Null && was != o.Default.String() || !supported {
		t.Errorf("default %v, in force %v, supported %v", probed, was, supported)
	}
	stream := o.Networks&listeners.OnStream&l.Spec().Class() != 0
	var before net.Conn
	var beforeFD int
	if stream {
		before = dial(t, loopback(h.addr(l, 0)))
		beforeFD = h.connOf(before).FD
	}
	connDef := def
	if stream {
		connDef = p.kernelSays(t, beforeFD)
	}
	r := h.tune(l, o.Name, p.ask)
	if o.Effect == listeners.Rebind {
		check("tune", r, listeners.NeedsRebind, was, was)
		kernel("tune", fd, def)
		return
	}
	check("tune", r, listeners.Applied, was, p.effective)
	kernel("tune", fd, p.kernel)
	check("again", h.tune(l, o.Name, p.ask), listeners.Unchanged, p.effective, p.effective)
	if got := l.Spec().Options[o.Name]; got.Type() != o.Type {
		t.Errorf("the spec has %v", got)
	}
	if stream {
		kernel("open connection", beforeFD, connDef)
		tableConns(t, h, l, o, p, beforeFD, connDef)
	}
	if o.Name == "tcp.window_clamp_bytes" {
		def = math.MaxInt32 // a 0 is taken by new sockets only; this means the same
	}
	check("default", h.tune(l, o.Name, ""), listeners.Applied, p.effective, was)
	kernel("default", fd, def)
	if _, ok := l.Spec().Options[o.Name]; ok {
		t.Error("the spec still has it")
	}
	if stream && o.OnConnection() && !p.restless {
		c := dial(t, loopback(h.addr(l, 0)))
		kernel("new connection after default", h.connOf(c).FD, connDef)
	}
	if strings.Contains(o.Name, "_buffer_") {
		if locks, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK); err != nil || locks != 0 {
			t.Errorf("the kernel does not tune the buffer again: %d, %v", locks, err)
		}
	}
}

// tableConns looks at a new connection, and tunes the old one.
func tableConns(t *testing.T, h *host, l *listeners.Listener, o *listeners.Option, p probe, old int, def int64) {
	t.Helper()
	c := dial(t, loopback(h.addr(l, 0)))
	fresh := h.connOf(c).FD
	want := p.onChild()
	if !o.OnConnection() && !o.Inherited {
		want = def
	}
	if got := p.kernelSays(t, fresh); got != want && (o.OnConnection() || !p.restless) {
		t.Errorf("new connection: the kernel has %d, want %d", got, want)
	}
	if !o.OnConnection() {
		return
	}
	results := h.tuneConns(l, o.Name, p.ask)
	outcomes := map[listeners.Outcome]uint64{}
	for _, r := range results {
		outcomes[r.Outcome] += r.Connections
		if r.Effective.String() != p.effective {
			t.Errorf("connections: %+v", r)
		}
	}
	if outcomes[listeners.Applied]+outcomes[listeners.Unchanged] != 2 || outcomes[listeners.Applied] != 1 && !p.restless {
		t.Errorf("connections: %+v", results)
	}
	if got := p.kernelSays(t, old); got != p.kernel {
		t.Errorf("tuned connection: the kernel has %d, want %d", got, p.kernel)
	}
	if results := h.tuneConns(l, o.Name, ""); len(results) != 1 || results[0].Connections != 2 || results[0].Outcome != listeners.Applied {
		t.Errorf("connections given the default: %+v", results)
	}
	for _, fd := range []int{old, fresh} {
		if locks, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK); err != nil || locks != 0 {
			t.Errorf("connection given the default: the kernel does not tune its buffers: %d, %v", locks, err)
		}
		if got := p.kernelSays(t, fd); got != def && !p.restless {
			t.Errorf("connection given the default: the kernel has %d, want %d", got, def)
		}
	}
	ask(t, c, []byte("still there"))
}

// addrOf is where a TCP socket is bound, for net.Dial.
func addrOf(t *testing.T, fd int) string {
	t.Helper()
	switch sa, err := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		return fmt.Sprintf("127.0.0.1:%d", sa.Port)
	case *unix.SockaddrInet6:
		return fmt.Sprintf("[::1]:%d", sa.Port)
	default:
		t.Fatal(err)
		return ""
	}
}

// loopback is a where a client can reach it.
func loopback(a net.Addr) net.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}
	}
	return a
}

// TestInherited asks the kernel, without this package, whether accepted TCP
// sockets have what the listening one has.
func TestInherited(t *testing.T) {
	noLeaks(t)
	for name, p := range probes {
		o := listeners.LookupOption(name)
		if o.Networks&listeners.OnTCP == 0 || o.Capability != "" && os.Getuid() != 0 {
			continue
		}
		family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		if strings.HasPrefix(name, "ip6.") {
			family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
		}
		ln, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		v := p.kernel
		if strings.Contains(name, "_buffer_") {
			v /= 2
		}
		if name == "tcp.no_delay" {
			v, p.kernel = 1, 1 // ours is the default here, not the kernel's
		}
		err = errors.Join(unix.Bind(ln, sa), unix.Listen(ln, 1), p.set(ln, v))
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", addrOf(t, ln))
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("x")) // for defer_accept
		child, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if inherited := p.kernelSays(t, child) == p.onChild(); inherited != o.Inherited {
			t.Errorf("%s: inherited %v, the table says %v", name, inherited, o.Inherited)
		}
		c.Close()
		unix.Close(child)
		unix.Close(ln)
	}
}

// has reports whether a socket at uri has the option, for this user.
func has(o *listeners.Option, uri string) bool {
	a, err := listeners.ParseAddress(uri)
	return err == nil && o.Networks&a.Network.Class() != 0 && (!strings.Contains(o.Name, "6.") || a.IP.Addr().Is6()) &&
		(o.Capability == "" || os.Getuid() == 0)
}

// Options given at the start are there before the first client, and on its
// connection.
func TestOptionsAtStart(t *testing.T) {
	uris := tableURIs(t)
	for n, all := range uris {
		for _, uri := range all {
			h := newHost(t, "epoll", 0)
			var options []string
			for name, p := range probes {
				if has(listeners.LookupOption(name), uri) {
					options = append(options, name+"="+p.ask)
				}
			}
			l := h.open(spec(t, listeners.Echo{}, strings.Join(options, " "), uri))
			if notes := l.Notes(); len(notes) > 0 {
				t.Errorf("%s: %+v", uri, notes)
			}
			fd := h.status(l).Sockets[0].FD
			connFD := -1
			if !n.Datagram() {
				connFD = h.connOf(dial(t, loopback(h.addr(l, 0)))).FD
			}
			var values map[string]listeners.Value
			h.do(func() { values = l.InForce(nil) })
			for name, p := range probes {
				o := listeners.LookupOption(name)
				if !has(o, uri) {
					if v, ok := values[name]; ok {
						t.Errorf("%s: %s is in force: %v", uri, name, v)
					}
					continue
				}
				if got := p.kernelSays(t, fd); got != p.kernel || values[name].String() != p.effective {
					t.Errorf("%s: %s is %d, shown as %v", uri, name, got, values[name])
				}
				if connFD < 0 || !o.OnConnection() {
					continue
				}
				if got := p.kernelSays(t, connFD); got != p.kernel && !p.restless {
					t.Errorf("%s: %s is %d on a connection", uri, name, got)
				}
			}
		}
	}
}

// What the kernel does not take as it was asked is said to be clamped, and why.
func TestClamped(t *testing.T) {
	h, dir := newHost(t, "epoll", 0), shortDir(t)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	u := h.open(spec(t, listeners.Echo{}, "", "unix://"+dir+"/s", "unixgram://"+dir+"/g"))
	most := func(sysctl string) int64 {
		text, err := os.ReadFile("/proc/sys/" + sysctl)
		if err != nil {
			t.Skip(err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	somax, rmem, wmem := most("net/core/somaxconn"), most("net/core/rmem_max"), most("net/core/wmem_max")
	for _, tt := range []struct {
		l            *listeners.Listener
		option       string
		ask          int64
		effective    string
		says, unsaid string
	}{
		{l, "backlog", somax + 1, fmt.Sprint(somax), "net.core.somaxconn is " + fmt.Sprint(somax), ""},
		{u, "backlog", somax + 1, fmt.Sprint(somax), "net.core.somaxconn", ""},
		{l, "receive_buffer_bytes", rmem + 1, fmt.Sprint(2 * rmem), "net.core.rmem_max", ""},
		{u, "receive_buffer_bytes", rmem + 1, fmt.Sprint(2 * rmem), "net.core.rmem_max", ""},
		{l, "send_buffer_bytes", wmem + 1, fmt.Sprint(2 * wmem), "net.core.wmem_max", ""},
		{l, "receive_buffer_bytes", 1, "", "", "rmem_max"},
		{l, "send_buffer_bytes", 1, "", "", "wmem_max"},
		{l, "traffic_class", 255, "252", "", "sysctl"},
		{l, "tcp.defer_accept", 5, "7s", "", "sysctl"},
	} {
		r := h.tune(tt.l, tt.option, fmt.Sprint(tt.ask))
		if r.Outcome != listeners.Clamped || tt.effective != "" && r.Effective.String() != tt.effective || r.Message == "" ||
			!strings.Contains(r.Message, tt.says) || tt.unsaid != "" && strings.Contains(r.Message, tt.unsaid) {
			t.Errorf("%s=%d: %+v", tt.option, tt.ask, r)
		}
	}
	notes := l.Notes()
	names := map[string]bool{}
	for _, n := range notes {
		names[n.Option.Name] = n.Outcome == listeners.Clamped
	}
	for _, name := range []string{"backlog", "receive_buffer_bytes", "send_buffer_bytes", "traffic_class", "tcp.defer_accept"} {
		if !names[name] {
			t.Errorf("no note of %s: %+v", name, notes)
		}
	}
	for _, tt := range []struct{ option, ask, effective string }{
		{"tcp.keepalive_idle", "1500ms", "2s"}, {"linger", "100ms", "1s"}, {"tcp.user_timeout", "1us", "1ms"},
	} {
		if r := h.tune(l, tt.option, tt.ask); r.Outcome != listeners.Clamped || r.Effective.String() != tt.effective {
			t.Errorf("%s=%s: %+v", tt.option, tt.ask, r)
		}
	}
}

// The bounds that the table gives are ones that the kernel takes.
func TestOptionRanges(t *testing.T) {
	h := newHost(t, "epoll", 0)
	for _, o := range listeners.Options {
		least, greatest, ok := o.Range()
		if !ok {
			continue
		}
		uri := tableURIs(t)[o.Networks.Networks()[0]][0]
		l := h.open(spec(t, listeners.Discard{}, "", uri))
		for _, n := range []int64{least, greatest} {
			v := map[listeners.Type]listeners.Value{
				listeners.Int: listeners.IntValue(n), listeners.Bytes: listeners.BytesValue(n), listeners.Duration: listeners.DurationValue(time.Duration(n)),
			}[o.Type]
			if _, err := o.Parse(v); err != nil {
				t.Errorf("%s=%v: %v", o.Name, v, err)
			}
			h.do(func() {
				r := l.Tune(o, v)
				if strings.Contains(o.Summary, "two ticks of the kernel") && n == least && r.Errno == "EINVAL" {
					return // how long that is only the kernel knows
				}
				if r.Outcome == listeners.Failed || r.Outcome == listeners.NeedsRebind {
					t.Errorf("%s=%v: %+v", o.Name, v, r)
				}
			})
		}
	}
}

// ss shows what was set.
func TestOptionsInSS(t *testing.T) {
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip(err)
	}
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "tcp.keepalive=true tcp.keepalive_idle=1000s backlog=33 traffic_class=8", "tcp://127.0.0.1:0"))
	port := h.status(l).Bound[0].IP.Port()
	ask(t, dial(t, h.addr(l, 0)), []byte("x"))
	ss := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "ss", append(args, fmt.Sprintf("sport = :%d", port))...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if out := ss("-Htno"); !strings.Contains(out, "timer:(keepalive,16min") {
		t.Error(out)
	}
	if f := strings.Fields(ss("-Hltn")); len(f) < 3 || f[2] != "33" {
		t.Error(f)
	}
	if out := ss("-Hltne"); !strings.Contains(out, fmt.Sprintf("sk:%x ", h.status(l).Sockets[0].Cookie)) || !strings.Contains(out, fmt.Sprintf("ino:%d ", h.status(l).Sockets[0].Inode)) {
		t.Error(out)
	}
	conn := h.conns()[0]
	if out := ss("-Htne"); !strings.Contains(out, fmt.Sprintf("sk:%x ", conn.Cookie)) || !strings.Contains(out, fmt.Sprintf("ino:%d ", conn.Inode)) {
		t.Error(out)
	}
}

// defer_accept keeps clients that say nothing from being accepted.
func TestDeferAccept(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "tcp.defer_accept=30s", "tcp://127.0.0.1:0"))
	silent, talks := dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0))
	ask(t, talks, []byte("x"))
	if st := h.stats(l); st.Accepted != 1 {
		t.Errorf("%d accepted", st.Accepted)
	}
	ask(t, silent, []byte("x"))
}
