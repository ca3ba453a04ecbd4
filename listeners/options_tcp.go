package listeners

import (
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tcpOptions are those of tcp(7) that mainOptions has not.
var tcpOptions = []*Option{
	{
		Name: "tcp.congestion", Summary: "Congestion control algorithm.",
		Type: String, Networks: OnTCP, Effect: Live, Inherited: true, list: congestionAlgorithms,
		Kernel: "TCP_CONGESTION", Level: unix.IPPROTO_TCP, Number: unix.TCP_CONGESTION,
	}, {
		Name: "tcp.cork", Summary: "Hold back segments that are not full, for up to 200 ms.",
		Type: Bool, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_CORK", Level: unix.IPPROTO_TCP, Number: unix.TCP_CORK,
	}, {
		Name: "tcp.quick_ack", Summary: "Acknowledge at once; the kernel turns it off again by itself.",
		Type: Bool, Networks: OnTCP, Effect: Live, Inherited: true, late: true,
		Kernel: "TCP_QUICKACK", Level: unix.IPPROTO_TCP, Number: unix.TCP_QUICKACK,
	}, {
		Name: "tcp.max_segment_bytes", Summary: "Largest segment that is offered and sent; a connection with timestamps has 12 bytes less.",
		Type: Bytes, Min: 88, Max: 32767, Networks: OnTCP, Effect: NewConnections, Inherited: true,
		Kernel: "TCP_MAXSEG", Level: unix.IPPROTO_TCP, Number: unix.TCP_MAXSEG,
	}, {
		Name: "tcp.window_clamp_bytes", Summary: "Largest receive window that is advertised; null leaves it to the kernel.",
		Type: Bytes, Min: 1, Max: math.MaxInt32, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_WINDOW_CLAMP", Level: unix.IPPROTO_TCP, Number: unix.TCP_WINDOW_CLAMP, get: getWindowClamp, reset: resetWindowClamp,
	}, {
		Name: notSentLowWater, Summary: "Report a connection as writable only when less than this waits unsent.",
		Type: Bytes, Max: math.MaxInt32, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_NOTSENT_LOWAT", Level: unix.IPPROTO_TCP, Number: unix.TCP_NOTSENT_LOWAT,
	}, {
		Name: "tcp.syn_count", Summary: "Times that a handshake is tried again.",
		Type: Int, Min: 1, Max: 127, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_SYNCNT", Level: unix.IPPROTO_TCP, Number: unix.TCP_SYNCNT,
	}, {
		Name: "tcp.fin_timeout", Summary: "Time that a closed connection waits for the peer's FIN.",
		Type: Duration, Min: int64(time.Second), Max: int64(120 * time.Second), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_LINGER2", Level: unix.IPPROTO_TCP, Number: unix.TCP_LINGER2, unit: time.Second,
	}, {
		Name: "tcp.fast_open", Summary: "Handshakes with data that may be in progress; 0 is off. net.ipv4.tcp_fastopen must allow it.",
		Type: Int, Max: math.MaxInt32, Networks: OnTCP, Effect: NewConnections, Clamp: "net.core.somaxconn",
		Kernel: "TCP_FASTOPEN", Level: unix.IPPROTO_TCP, Number: unix.TCP_FASTOPEN,
	}, {
		Name: "tcp.fast_open_no_cookie", Summary: "Take data in a handshake from clients without a cookie too.",
		Type: Bool, Networks: OnTCP, Effect: NewConnections, Inherited: true,
		Kernel: "TCP_FASTOPEN_NO_COOKIE", Level: unix.IPPROTO_TCP, Number: unix.TCP_FASTOPEN_NO_COOKIE,
	}, {
		Name: "tcp.save_syn", Summary: "Keep the headers of the first packet of a connection: 0 no, 1 from IP on, 2 with the link's.",
		Type: Int, Max: 2, Networks: OnTCP, Effect: NewConnections, Inherited: true,
		Kernel: "TCP_SAVE_SYN", Level: unix.IPPROTO_TCP, Number: unix.TCP_SAVE_SYN,
	}, {
		Name: "tcp.thin_linear_timeouts", Summary: "Retry thin streams at even intervals at first.",
		Type: Bool, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_THIN_LINEAR_TIMEOUTS", Level: unix.IPPROTO_TCP, Number: unix.TCP_THIN_LINEAR_TIMEOUTS,
	}, {
		Name: "tcp.transmit_delay", Summary: "Delay of outgoing packets, for tests.",
		Type: Duration, Max: int64(time.Second), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_TX_DELAY", Level: unix.IPPROTO_TCP, Number: unix.TCP_TX_DELAY, unit: time.Microsecond,
	}, {
		Name: "tcp.rto_max", Summary: "Longest time between two retries.",
		Type: Duration, Min: int64(time.Second), Max: int64(120 * time.Second), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_RTO_MAX_MS", Level: unix.IPPROTO_TCP, Number: unix.TCP_RTO_MAX_MS, unit: time.Millisecond,
	}, {
		Name: "tcp.rto_min", Summary: "Shortest time before a retry: two ticks of the kernel or more.",
		Type: Duration, Min: int64(2 * time.Millisecond), Max: int64(200 * time.Millisecond), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_RTO_MIN_US", Level: unix.IPPROTO_TCP, Number: unix.TCP_RTO_MIN_US, unit: time.Microsecond,
	}, {
		Name: "tcp.delayed_ack_max", Summary: "Longest time that an acknowledgement is held back: two ticks of the kernel or more.",
		Type: Duration, Min: int64(2 * time.Millisecond), Max: int64(200 * time.Millisecond), Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "TCP_DELACK_MAX_US", Level: unix.IPPROTO_TCP, Number: unix.TCP_DELACK_MAX_US, unit: time.Microsecond,
	},
}

// getWindowClamp reads no clamp as Null. It is 0 on a new socket, and the kernel
// takes a 0 only there: see resetWindowClamp.
func getWindowClamp(s *socket) (Value, error) {
	n, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP)
	if err != nil || n == 0 || n == math.MaxInt32 {
		return Value{}, os.NewSyscallError("getsockopt TCP_WINDOW_CLAMP", err)
	}
	return BytesValue(int64(n)), nil
}

func resetWindowClamp(s *socket) error {
	return os.NewSyscallError("setsockopt TCP_WINDOW_CLAMP", unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, math.MaxInt32))
}

// congestionAlgorithms are those that anybody may choose on this host.
func congestionAlgorithms() []string {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if err != nil {
		return nil // then the kernel is asked
	}
	return strings.Fields(string(text))
}
