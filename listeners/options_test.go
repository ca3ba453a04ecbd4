package listeners_test

import (
	"errors"
	"fmt"
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
// the backlog and the mode.
var probes = map[string]probe{
	"receive_buffer_bytes":   intProbe("50000", "100000", 100000, unix.SOL_SOCKET, unix.SO_RCVBUF),
	"send_buffer_bytes":      intProbe("50000", "100000", 100000, unix.SOL_SOCKET, unix.SO_SNDBUF),
	"traffic_class":          {"72", "72", 72, getTOS, setTOS},
	"linger":                 {"3s", "3s", 3, getLinger, setLinger},
	"reuse_port":             intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_REUSEPORT),
	"tcp.no_delay":           intProbe("false", "false", 0, unix.IPPROTO_TCP, unix.TCP_NODELAY),
	"tcp.keepalive":          intProbe("true", "true", 1, unix.SOL_SOCKET, unix.SO_KEEPALIVE),
	"tcp.keepalive_idle":     intProbe("100s", "1m40s", 100, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
	"tcp.keepalive_interval": intProbe("7s", "7s", 7, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL),
	"tcp.keepalive_count":    intProbe("3", "3", 3, unix.IPPROTO_TCP, unix.TCP_KEEPCNT),
	"tcp.user_timeout":       intProbe("1500ms", "1.5s", 1500, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT),
	"tcp.defer_accept":       intProbe("3s", "3s", 3, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT),
}

func isIPv6(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && n == unix.AF_INET6
}

// getTOS wants a socket of both versions to say the same of both.
func getTOS(fd int) (int64, error) {
	v4, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS)
	if err == nil && isIPv6(fd) {
		var v6 int
		if v6, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS); v6 != v4 {
			return 0, fmt.Errorf("IP_TOS is %d, IPV6_TCLASS %d: %w", v4, v6, err)
		}
	}
	return int64(v4), err
}

func setTOS(fd int, v int64) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, int(v))
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
	h.do(func() {
		for next := 0; next >= 0; {
			var some []listeners.ConnStatus
			some, next = h.set.Conns("test", next, 1000, true)
			all = append(all, some...)
		}
	})
	return all
}

// connOf is the server's end of a connection that has been used.
func (h *host) connOf(c net.Conn) listeners.ConnStatus {
	h.t.Helper()
	ask(h.t, c, []byte("x"))
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
	h.do(func() {
		for next := 0; next >= 0; {
			results, next = h.set.TuneConns(l, listeners.LookupOption(option), v, next, results)
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
		if !o.OnSocket() || o.Name == "backlog" || o.Name == "unix.mode" { // they have tests of their own
			continue
		}
		if !ok {
			continue // rows of another test
		}
		for _, n := range o.Networks.Networks() {
			for _, uri := range uris[n] {
				t.Run(o.Name+"/"+uri[:strings.Index(uri, "/")-1]+strings.Repeat("-dual", strings.Count(uri, "[::]")), func(t *testing.T) {
					h := newHost(t, "epoll", 0)
					l := h.open(spec(t, listeners.Echo{}, "", uri))
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
	check("default", h.tune(l, o.Name, ""), listeners.Applied, p.effective, was)
	kernel("default", fd, def)
	if _, ok := l.Spec().Options[o.Name]; ok {
		t.Error("the spec still has it")
	}
	if stream && o.OnConnection() {
		c := dial(t, loopback(h.addr(l, 0)))
		kernel("new connection after default", h.connOf(c).FD, connDef)
	}
	if strings.HasSuffix(o.Name, "buffer_bytes") {
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
	want := p.kernel
	if !o.OnConnection() {
		want = def
	}
	if got := p.kernelSays(t, fresh); got != want {
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
	if outcomes[listeners.Applied] != 1 || outcomes[listeners.Unchanged] != 1 {
		t.Errorf("connections: %+v", results)
	}
	if got := p.kernelSays(t, old); got != p.kernel {
		t.Errorf("tuned connection: the kernel has %d, want %d", got, p.kernel)
	}
	if results := h.tuneConns(l, o.Name, ""); len(results) != 1 || results[0].Connections != 2 || results[0].Outcome != listeners.Applied {
		t.Errorf("connections given the default: %+v", results)
	}
	for _, fd := range []int{old, fresh} {
		if o.Name == "send_buffer_bytes" { // of a connection it has grown with the traffic, and will again
			locks, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
			if got := p.kernelSays(t, fd); got > def || locks != 0 || err != nil {
				t.Errorf("connection given the default: the kernel has %d, want at most %d, locks %d, %v", got, def, locks, err)
			}
			continue
		}
		if got := p.kernelSays(t, fd); got != def {
			t.Errorf("connection given the default: the kernel has %d, want %d", got, def)
		}
	}
	ask(t, c, []byte("still there"))
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
		if o.Networks&listeners.OnTCP == 0 {
			continue
		}
		ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		v := p.kernel
		if strings.HasSuffix(name, "buffer_bytes") {
			v /= 2
		}
		if name == "tcp.no_delay" {
			v, p.kernel = 1, 1 // ours is the default here, not the kernel's
		}
		err = errors.Join(unix.Bind(ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(ln, 1), p.set(ln, v))
		if err != nil {
			t.Fatal(err)
		}
		sa, _ := unix.Getsockname(ln)
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port))
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("x")) // for defer_accept
		child, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if inherited := p.kernelSays(t, child) == p.kernel; inherited != o.Inherited {
			t.Errorf("%s: inherited %v, the table says %v", name, inherited, o.Inherited)
		}
		c.Close()
		unix.Close(child)
		unix.Close(ln)
	}
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
				if o := listeners.LookupOption(name); o.Networks&n.Class() != 0 {
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
				if o.Networks&n.Class() == 0 {
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
				if got := p.kernelSays(t, connFD); got != p.kernel {
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
				if r := l.Tune(o, v); r.Outcome == listeners.Failed || r.Outcome == listeners.NeedsRebind {
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
