package listeners

import "time"

// limitOptions are limits beside max_connections and idle_timeout.
var limitOptions = []*Option{
	{
		Name: "max_connections_per_source", Summary: "Open connections of one source, an address or what source_prefix_v4 and _v6 make of it; further ones are refused. 0 is no limit.",
		Type: Int, Max: 100_000_000, Networks: OnTCP, Effect: Live, Default: IntValue(0),
		tunable: func(t *Tunables) *int64 { return &t.MaxPerSource },
	}, {
		Name: "source_prefix_v4", Summary: "Leading bits of an IPv4 address that make a source: 32 is each address, 24 each network of 256.",
		Type: Int, Max: 32, Networks: OnTCP, Effect: Live, Default: IntValue(32),
		tunable: func(t *Tunables) *int64 { return &t.SourcePrefixV4 },
	}, {
		Name: "source_prefix_v6", Summary: "Leading bits of an IPv6 address that make a source: one customer mostly has 64 or less.",
		Type: Int, Max: 128, Networks: OnTCP, Effect: Live, Default: IntValue(64),
		tunable: func(t *Tunables) *int64 { return &t.SourcePrefixV6 },
	}, {
		Name: "max_age", Summary: "Close a connection so long after it was accepted, at the next point of rest, at the latest spec.drain.timeout later. 0 never does.",
		Type: Duration, Max: int64(365 * day), Networks: OnStream, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.MaxAge) },
	}, {
		Name: "write_timeout", Summary: "Reset a connection whose peer, or whose upstream, has taken nothing for this time of what waits for it. 0 never does.",
		Type: Duration, Max: int64(365 * day), Networks: OnStream, Effect: Live, Default: DurationValue(5 * time.Minute),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.WriteTimeout) },
	}, {
		Name: "listener_write_buffer_bytes", Summary: "Most that is kept for all peers of the listener together that do not read; beyond it little is read for such peers, and those that take nothing for 5 s are reset. 0 leaves it to the limit of the daemon, --write-buffer-bytes.",
		Type: Bytes, Max: 1 << 40, Networks: OnStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.TotalWriteBuffer },
	}, {
		Name: "accept_rate", Summary: "Connections accepted in a second; further ones wait in the kernel. 0 is no limit.",
		Type: Int, Max: 1_000_000, Networks: OnStream, Effect: Live, Default: IntValue(0),
		tunable: func(t *Tunables) *int64 { return &t.AcceptRate },
	}, {
		Name: "accept_burst", Summary: "Connections that accept_rate lets in at once after a quiet time; 0 is as many as in a second.",
		Type: Int, Max: 1_000_000, Networks: OnStream, Effect: Live, Default: IntValue(0),
		tunable: func(t *Tunables) *int64 { return &t.AcceptBurst },
	}, {
		Name: "read_rate_bytes", Summary: "Bytes read from a connection in a second; its client waits by TCP's window. 0 is no limit.",
		Type: Bytes, Max: 8 << 30, Networks: OnStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.ReadRate },
	}, {
		Name: "write_rate_bytes", Summary: "Bytes written to a connection in a second. 0 is no limit.",
		Type: Bytes, Max: 8 << 30, Networks: OnStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.WriteRate },
	}, {
		Name: "listener_read_rate_bytes", Summary: "Bytes read from all connections of the listener together in a second, in turn. 0 is no limit.",
		Type: Bytes, Max: 8 << 30, Networks: OnStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.ListenerReadRate },
	}, {
		Name: "listener_write_rate_bytes", Summary: "Bytes written to all connections of the listener together in a second, in turn. 0 is no limit.",
		Type: Bytes, Max: 8 << 30, Networks: OnStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.ListenerWriteRate },
	}, {
		Name: "udp.max_reply_bytes", Summary: "Longest answer to a datagram that is shorter; a longer one is dropped. Larger values help who forges addresses to flood others.",
		Type: Bytes, Max: maxDatagram, Networks: OnUDP, Effect: Live, Default: BytesValue(32),
		tunable: func(t *Tunables) *int64 { return &t.MaxReply },
	}, {
		Name: "udp.reply_rate", Summary: "Datagrams answered in a second to one network, of 256 IPv4 addresses or an IPv6 /64; further answers are dropped. Not of loopback. 0 is no limit.",
		Type: Int, Max: 100_000_000, Networks: OnUDP, Effect: Live, Default: IntValue(10_000),
		tunable: func(t *Tunables) *int64 { return &t.ReplyRate },
	},
}
