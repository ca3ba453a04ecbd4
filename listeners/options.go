package listeners

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Names that code outside the table needs.
const (
	backlog      = "backlog"
	unixMode     = "unix.mode"
	segmentBytes = "udp.segment_bytes"
	linger       = "linger"
	incomingCPU  = "incoming_cpu"

	notSentLowWater = "tcp.not_sent_low_water_bytes"

	durabilityOption = "durability"
)

const day = 24 * time.Hour

// Options is the option table, in the order that help shows it. To add an
// option, add a row.
var Options = slices.Concat(mainOptions, limitOptions, faultOptions, socketOptions, ipOptions, multicastOptions, tcpOptions)

// mainOptions are those that most operators ever need.
var mainOptions = []*Option{
	{
		Name: backlog, Summary: "Connections that may wait in the kernel to be accepted; the queue holds one more.",
		Type: Int, Min: 1, Max: math.MaxInt32, Networks: OnStream, Effect: Live, Default: IntValue(4096),
		Kernel: "listen(2)", Clamp: "net.core.somaxconn",
		get: getBacklog,
		set: func(s *socket, v Value) error { return os.NewSyscallError("listen", sysListen(s.fd, int(v.n))) },
	}, {
		Name: "max_connections", Summary: "Open connections of the listener; further ones wait in the kernel. 0 is no limit.",
		Type: Int, Max: 100_000_000, Networks: OnStream, Effect: Live, Default: IntValue(0),
		tunable: func(t *Tunables) *int64 { return &t.MaxConnections },
	}, {
		Name: "idle_timeout", Summary: "Close a connection on which no byte moved for this time. 0 never does.",
		Type: Duration, Max: int64(365 * day), Networks: OnStream, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.IdleTimeout) },
	}, {
		Name: "read_buffer_bytes", Summary: "Most that is read from a connection at once, or kept for its handler.",
		Type: Bytes, Min: 1 << 10, Max: maxReadBuffer, Networks: OnStream, Effect: Live, Default: BytesValue(64 << 10),
		tunable: func(t *Tunables) *int64 { return &t.ReadBuffer },
	}, {
		Name: "write_buffer_bytes", Summary: "Most that is kept for a peer that does not read; until it has, nothing more is read from it.",
		Type: Bytes, Min: 1 << 10, Max: 64 << 20, Networks: OnStream | OnUDP, Effect: Live, Default: BytesValue(256 << 10),
		tunable: func(t *Tunables) *int64 { return &t.WriteBuffer },
	}, {
		Name: durabilityOption, Summary: "connections: those of echo, discard, reply, http and forward over TCP go on when the daemon is killed and started again by sockmgr supervise or systemd; each takes 8 to 132 KiB more. none: they are lost.",
		Type: String, Networks: OnTCP, Effect: NewConnections, Default: StringValue(durability[0]), words: durability,
		tunable: func(t *Tunables) *int64 { return &t.Durability },
	}, {
		Name: "receive_buffer_bytes", Summary: "Kernel receive buffer; the kernel doubles what is set, and setting it ends autotuning.",
		Type: Bytes, Min: 1, Max: math.MaxInt32 / 2, Networks: OnAll, Effect: Live, Inherited: true,
		Kernel: "SO_RCVBUF", Level: unix.SOL_SOCKET, Number: unix.SO_RCVBUF, Clamp: "net.core.rmem_max",
		same: doubled, reset: func(s *socket) error { return autotune(s, unix.SO_RCVBUF, bufLockReceive) }, lock: bufLockReceive,
	}, {
		Name: "send_buffer_bytes", Summary: "Kernel send buffer; the kernel doubles what is set, and setting it ends autotuning.",
		Type: Bytes, Min: 1, Max: math.MaxInt32 / 2, Networks: OnAll, Effect: Live, Inherited: true,
		Kernel: "SO_SNDBUF", Level: unix.SOL_SOCKET, Number: unix.SO_SNDBUF, Clamp: "net.core.wmem_max",
		same: doubled, reset: func(s *socket) error { return autotune(s, unix.SO_SNDBUF, bufLockSend) }, lock: bufLockSend,
	}, {
		Name: "traffic_class", Summary: "DSCP and ECN byte of outgoing packets; TCP keeps the two ECN bits to itself.",
		Type: Int, Max: 255, Networks: OnIP, Effect: Live, Inherited: true,
		Kernel: "IP_TOS", Level: unix.IPPROTO_IP, Number: unix.IP_TOS, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
	}, {
		Name: linger, Summary: "0s makes a close reset the connection and drop unsent bytes; null is off. A longer time is the kernel's to keep: the daemon never waits in a close.",
		Type: Duration, Max: int64(math.MaxInt16) * int64(time.Second), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "SO_LINGER", Level: unix.SOL_SOCKET, Number: unix.SO_LINGER, get: getLinger, set: setLinger,
	}, {
		Name: "reuse_port", Summary: "Let other sockets of the same user bind the same port and share its connections.",
		Type: Bool, Networks: OnIP, Effect: Rebind, Inherited: true,
		Kernel: "SO_REUSEPORT", Level: unix.SOL_SOCKET, Number: unix.SO_REUSEPORT,
	}, {
		Name: "tcp.no_delay", Summary: "Send small segments at once, without Nagle's algorithm.",
		Type: Bool, Networks: OnTCP, Effect: Live, Inherited: true, Default: BoolValue(true),
		Kernel: "TCP_NODELAY", Level: unix.IPPROTO_TCP, Number: unix.TCP_NODELAY,
	}, {
		Name: "tcp.keepalive", Summary: "Probe idle connections, and end those whose peer is gone.",
		Type: Bool, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "SO_KEEPALIVE", Level: unix.SOL_SOCKET, Number: unix.SO_KEEPALIVE,
	}, {
		Name: "tcp.keepalive_idle", Summary: "Idle time before the first keepalive probe.",
		Type: Duration, Min: int64(time.Second), Max: int64(32767 * time.Second), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_KEEPIDLE", Level: unix.IPPROTO_TCP, Number: unix.TCP_KEEPIDLE, unit: time.Second,
	}, {
		Name: "tcp.keepalive_interval", Summary: "Time between two keepalive probes.",
		Type: Duration, Min: int64(time.Second), Max: int64(32767 * time.Second), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_KEEPINTVL", Level: unix.IPPROTO_TCP, Number: unix.TCP_KEEPINTVL, unit: time.Second,
	}, {
		Name: "tcp.keepalive_count", Summary: "Keepalive probes without an answer that end a connection.",
		Type: Int, Min: 1, Max: 127, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_KEEPCNT", Level: unix.IPPROTO_TCP, Number: unix.TCP_KEEPCNT,
	}, {
		Name: "tcp.user_timeout", Summary: "Time that sent bytes may stay unacknowledged before the connection ends. 0 leaves it to the kernel's retries.",
		Type: Duration, Max: int64(math.MaxInt32) * int64(time.Millisecond), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_USER_TIMEOUT", Level: unix.IPPROTO_TCP, Number: unix.TCP_USER_TIMEOUT, unit: time.Millisecond,
	}, {
		Name: "tcp.defer_accept", Summary: "Wait about this long for the first byte before a connection is accepted; the kernel rounds to its retry times.",
		Type: Duration, Max: int64(time.Hour), Networks: OnTCP, Effect: NewConnections,
		Kernel: "TCP_DEFER_ACCEPT", Level: unix.IPPROTO_TCP, Number: unix.TCP_DEFER_ACCEPT, unit: time.Second,
	}, {
		Name: unixMode, Summary: "Permissions of the socket's path, in octal; connecting needs write permission.",
		Type: String, Networks: OnPath, Effect: Live, Default: StringValue("0660"),
		Kernel: "chmod(2)", check: checkMode, get: getMode, set: setMode,
		same: func(asked, got Value) bool { return modeOf(asked) == modeOf(got) },
	}, {
		Name: "http.request_timeout", Summary: "http: time a client has to send a whole request; then it is answered 408. 0 is no limit.",
		Type: Duration, Max: int64(day), Networks: OnStream, Effect: Live, Default: DurationValue(30 * time.Second),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.RequestTimeout) },
	}, {
		Name: "http.keepalive_timeout", Summary: "http: time a connection may stay open between two requests. 0 is no limit.",
		Type: Duration, Max: int64(day), Networks: OnStream, Effect: Live, Default: DurationValue(75 * time.Second),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.KeepaliveTimeout) },
	}, {
		Name: "forward.wait", Summary: "forward: time a connection waits while no upstream is healthy. 0 refuses it at once.",
		Type: Duration, Max: int64(time.Hour), Networks: OnStream, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.UpstreamWait) },
	}, {
		Name: "forward.session_timeout", Summary: "forward: time after which a source of datagrams is forgotten that sent and got none.",
		Type: Duration, Min: int64(time.Second), Max: int64(day), Networks: OnDatagram, Effect: Live, Default: DurationValue(time.Minute),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.SessionTimeout) },
	}, {
		Name: "forward.max_sessions", Summary: "forward: sources of datagrams at once; each has a socket of its own. Datagrams of more are dropped.",
		Type: Int, Min: 1, Max: 1 << 20, Networks: OnDatagram, Effect: Live, Default: IntValue(4096),
		tunable: func(t *Tunables) *int64 { return &t.MaxSessions },
	}, {
		Name: "http.max_body_bytes", Summary: "http: largest request body that is read and dropped; a larger one is answered 413.",
		Type: Bytes, Max: 1 << 40, Networks: OnStream, Effect: Live, Default: BytesValue(1 << 20),
		tunable: func(t *Tunables) *int64 { return &t.MaxRequestBody },
	}, {
		Name: "exec.max_processes", Summary: "exec: programs at once, one for each connection; further connections wait in the kernel. 0 is no limit.",
		Type: Int, Max: 1_000_000, Networks: OnStream, Effect: Live, Default: IntValue(256),
		tunable: func(t *Tunables) *int64 { return &t.MaxProcesses },
	},
}

// maxReadBuffer bounds the one read buffer that all connections share.
const maxReadBuffer = 1 << 20

// doubled knows that the kernel counts its own bookkeeping in: it sets twice
// what is asked (socket(7)).
func doubled(asked, got Value) bool { return got.n == 2*asked.n }

// The bits of SO_BUF_LOCK: which buffer was set and so is not tuned by itself.
const (
	bufLockSend    = 1
	bufLockReceive = 2
)

// autotune gives a buffer the size of a new socket's and back to the kernel's
// tuning. SO_BUF_LOCK is there since Linux 5.14; without it the size must do.
func autotune(s *socket, number, lock int) error {
	fresh, err := unix.Socket(s.family, s.addr.Network.kind().sock|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer sysClose(fresh)
	size, err := unix.GetsockoptInt(fresh, unix.SOL_SOCKET, number)
	if err == nil {
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, number, size/2) // it doubles
	}
	if err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	locks, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err == nil {
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, locks&^lock)
	}
	if err == unix.ENOPROTOOPT {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_BUF_LOCK", err)
}

// getBacklog reads the limit in force. For TCP it is tcpi_sacked of the
// listening socket; Unix sockets tell it only through sock_diag.
func getBacklog(s *socket) (Value, error) {
	_, limit, err := s.acceptQueue()
	return IntValue(int64(limit)), err
}

func getLinger(s *socket) (Value, error) {
	sec, on, err := sockLinger(s.fd)
	if err != nil || !on {
		return Value{}, err
	}
	return DurationValue(time.Duration(sec) * time.Second), nil
}

func setLinger(s *socket, v Value) error {
	l := unix.Linger{}
	if v.typ != Null {
		l.Onoff, l.Linger = 1, int32((time.Duration(v.n)+time.Second-1)/time.Second)
	}
	return os.NewSyscallError("setsockopt SO_LINGER", unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
}

func modeOf(v Value) os.FileMode {
	n, err := strconv.ParseUint(v.text, 8, 32)
	if err != nil {
		return 0
	}
	return os.FileMode(n)
}

func checkMode(v Value) error {
	if n, err := strconv.ParseUint(v.text, 8, 32); err != nil || n > 0o777 {
		return fmt.Errorf("%q is not a file mode in octal, such as 0660", v.text)
	}
	return nil
}

func getMode(s *socket) (Value, error) {
	mode, err := s.pathMode()
	if err != nil {
		return Value{}, err
	}
	return StringValue(fmt.Sprintf("%04o", mode)), nil
}

func setMode(s *socket, v Value) error {
	return s.chmodPath(modeOf(v))
}
