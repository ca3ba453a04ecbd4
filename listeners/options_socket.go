package listeners

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

const (
	netAdmin   = "CAP_NET_ADMIN"
	bufferLock = "buffer_lock"
)

// socketOptions are those of SOL_SOCKET (socket(7)).
var socketOptions = []*Option{
	{
		Name: "receive_buffer_force_bytes", Summary: "receive_buffer_bytes beyond its sysctl.",
		Type: Bytes, Min: 1, Max: math.MaxInt32 / 2, Networks: OnAll, Effect: Live, Inherited: true, Capability: netAdmin,
		Kernel: "SO_RCVBUFFORCE", Level: unix.SOL_SOCKET, Number: unix.SO_RCVBUFFORCE, same: doubled,
		get: getOther(unix.SO_RCVBUF), reset: func(s *socket) error { return autotune(s, unix.SO_RCVBUF, bufLockReceive) }, lock: bufLockReceive,
	}, {
		Name: "send_buffer_force_bytes", Summary: "send_buffer_bytes beyond its sysctl.",
		Type: Bytes, Min: 1, Max: math.MaxInt32 / 2, Networks: OnAll, Effect: Live, Inherited: true, Capability: netAdmin,
		Kernel: "SO_SNDBUFFORCE", Level: unix.SOL_SOCKET, Number: unix.SO_SNDBUFFORCE, same: doubled,
		get: getOther(unix.SO_SNDBUF), reset: func(s *socket) error { return autotune(s, unix.SO_SNDBUF, bufLockSend) }, lock: bufLockSend,
	}, {
		Name: bufferLock, Summary: "Buffers that keep their size; the kernel tunes the others. Setting a size locks its buffer.",
		Type: String, Networks: OnAll, Effect: Live, Inherited: true, words: []string{"none", "send", "receive", "both"},
		Kernel: "SO_BUF_LOCK", Level: unix.SOL_SOCKET, Number: unix.SO_BUF_LOCK,
	}, {
		Name: "receive_low_water_bytes", Summary: "Report a connection as readable only when so much can be read.",
		Type: Bytes, Min: 1, Max: math.MaxInt32, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "SO_RCVLOWAT", Level: unix.SOL_SOCKET, Number: unix.SO_RCVLOWAT,
	}, {
		Name: "max_pacing_rate", Summary: "Most bytes a second that are sent; null is no limit. UDP needs the fq queueing discipline.",
		Type: Bytes, Min: 1, Max: math.MaxUint32 - 1, Networks: OnIP, Effect: Live, Inherited: true, unlimited: true,
		Kernel: "SO_MAX_PACING_RATE", Level: unix.SOL_SOCKET, Number: unix.SO_MAX_PACING_RATE,
	}, {
		Name: "priority", Summary: "Priority of outgoing packets for the queueing discipline; above 6 needs the capability.",
		Type: Int, Max: math.MaxInt32, Networks: OnAll, Effect: Live, Capability: netAdmin,
		Kernel: "SO_PRIORITY", Level: unix.SOL_SOCKET, Number: unix.SO_PRIORITY,
	}, {
		Name: "mark", Summary: "Mark of outgoing packets, for routing and filters.",
		Type: Int, Max: math.MaxInt32, Networks: OnIP, Effect: Live, Inherited: true, Capability: netAdmin,
		Kernel: "SO_MARK", Level: unix.SOL_SOCKET, Number: unix.SO_MARK,
	}, {
		Name: incomingCPU, Summary: "CPU whose packets this socket is preferred for among those of one port (reuse_port); null: any. Of a connection, the kernel keeps the last.",
		Type: Int, Max: math.MaxInt32, Networks: OnIP, Effect: Live, unlimited: true,
		Kernel: "SO_INCOMING_CPU", Level: unix.SOL_SOCKET, Number: unix.SO_INCOMING_CPU,
	}, {
		Name: "busy_poll", Summary: "Time to poll the network device for before a wait; more than it is needs the capability.",
		Type: Duration, Max: int64(time.Second), Networks: OnIP, Effect: Live, Inherited: true, Capability: netAdmin,
		Kernel: "SO_BUSY_POLL", Level: unix.SOL_SOCKET, Number: unix.SO_BUSY_POLL, unit: time.Microsecond,
	}, {
		Name: "prefer_busy_poll", Summary: "Let busy polling keep the device's interrupts off.",
		Type: Bool, Networks: OnIP, Effect: Live, Inherited: true, Capability: netAdmin,
		Kernel: "SO_PREFER_BUSY_POLL", Level: unix.SOL_SOCKET, Number: unix.SO_PREFER_BUSY_POLL,
	}, {
		Name: "dont_route", Summary: "Send to directly connected hosts only, without a gateway.",
		Type: Bool, Networks: OnIP, Effect: Live, Inherited: true,
		Kernel: "SO_DONTROUTE", Level: unix.SOL_SOCKET, Number: unix.SO_DONTROUTE,
	}, {
		Name: "oob_inline", Summary: "Leave urgent data in the stream.",
		Type: Bool, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "SO_OOBINLINE", Level: unix.SOL_SOCKET, Number: unix.SO_OOBINLINE,
	}, {
		Name: "broadcast", Summary: "Allow datagrams to broadcast addresses.",
		Type: Bool, Networks: OnUDP, Effect: Live,
		Kernel: "SO_BROADCAST", Level: unix.SOL_SOCKET, Number: unix.SO_BROADCAST,
	}, {
		Name: "no_checksum", Summary: "Send UDP over IPv4 without checksums.",
		Type: Bool, Networks: OnUDP, Effect: Live,
		Kernel: "SO_NO_CHECK", Level: unix.SOL_SOCKET, Number: unix.SO_NO_CHECK,
	}, {
		Name: "transmit_rehash", Summary: "Choose another path through the network when a connection does not get on: 0 or 1.",
		Type: Int, Max: 1, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "SO_TXREHASH", Level: unix.SOL_SOCKET, Number: unix.SO_TXREHASH,
	}, {
		Name: "zero_copy", Summary: "Allow MSG_ZEROCOPY for who gets the socket.",
		Type: Bool, Networks: OnIP, Effect: Live, Inherited: true,
		Kernel: "SO_ZEROCOPY", Level: unix.SOL_SOCKET, Number: unix.SO_ZEROCOPY,
	}, {
		Name: "reuse_address", Summary: "Let a port be bound while connections of it are still closing.",
		Type: Bool, Networks: OnTCP, Effect: Live, Inherited: true, Default: BoolValue(true),
		Kernel: "SO_REUSEADDR", Level: unix.SOL_SOCKET, Number: unix.SO_REUSEADDR,
	}, {
		Name: "bind_to_device", Summary: "Name of the only network interface to receive from and send on; empty for all.",
		Type: String, Networks: OnIP, Effect: Live, Inherited: true,
		Kernel: "SO_BINDTODEVICE", Level: unix.SOL_SOCKET, Number: unix.SO_BINDTODEVICE,
	}, {
		Name: "unix.pass_credentials", Summary: "Let the kernel add the sender's process, user and group to messages.",
		Type: Bool, Networks: OnPath, Effect: Live,
		Kernel: "SO_PASSCRED", Level: unix.SOL_SOCKET, Number: unix.SO_PASSCRED,
	}, {
		Name: "unix.pass_rights", Summary: "Accept messages that carry descriptors; the daemon never takes them.",
		Type: Bool, Networks: OnPath, Effect: Live,
		Kernel: "SO_PASSRIGHTS", Level: unix.SOL_SOCKET, Number: unix.SO_PASSRIGHTS,
	},
}

// getOther reads the option that another one of SOL_SOCKET sets.
func getOther(number int) func(*socket) (Value, error) {
	return func(s *socket) (Value, error) {
		n, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, number)
		return BytesValue(int64(n)), err
	}
}
