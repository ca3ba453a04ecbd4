package listeners

import "time"

// What faults are for: a message has no part that could come later.
const (
	faultStream = OnTCP | OnUnix
	faultAll    = faultStream | OnDatagram
)

// faultOptions make connections bad on purpose, for who tests what connects.
// None is on unless it is asked for.
var faultOptions = []*Option{
	{
		Name: "fault.share_percent", Summary: "Of 100 connections, or sources of datagrams, how many the other fault options hit. A larger share hits those of the smaller too.",
		Type: Int, Max: 100, Networks: faultAll, Effect: Live, Default: IntValue(100),
		tunable: func(t *Tunables) *int64 { return &t.Faults.Share },
	}, {
		Name: "fault.direction", Summary: "Which way they hit: read is from the client, write to it.",
		Type: String, Networks: faultAll, Effect: Live, Default: StringValue("both"), words: []string{"both", "read", "write"},
		tunable: func(t *Tunables) *int64 { return &t.Faults.Direction },
	}, {
		Name: "fault.delay", Summary: "Hold what moves, and the end of it, for this time; up to write_buffer_bytes of each direction. 0 does not.",
		Type: Duration, Max: int64(time.Hour), Networks: faultAll, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.Faults.Delay) },
	}, {
		Name: "fault.jitter", Summary: "Hold it for up to so much longer, by chance; the order stays.",
		Type: Duration, Max: int64(time.Hour), Networks: faultAll, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.Faults.Jitter) },
	}, {
		Name: "fault.rate_bytes", Summary: "Bytes in a second of each connection that is hit. 0 is no limit.",
		Type: Bytes, Max: 8 << 30, Networks: faultStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.Faults.Rate },
	}, {
		Name: "fault.slice_bytes", Summary: "Move bytes in pieces of at most this size. 0 does not cut them up.",
		Type: Bytes, Max: 1 << 20, Networks: faultStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.Faults.Slice },
	}, {
		Name: "fault.slice_delay", Summary: "Time between two pieces of fault.slice_bytes.",
		Type: Duration, Max: int64(time.Minute), Networks: faultStream, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.Faults.SliceDelay) },
	}, {
		Name: "fault.cut_off", Summary: "Let nothing through, and keep the connection. What waits goes on when this ends.",
		Type: Bool, Networks: faultStream, Effect: Live, Default: BoolValue(false),
		tunable: func(t *Tunables) *int64 { return &t.Faults.CutOff },
	}, {
		Name: "fault.slow_close", Summary: "Hold the end of a stream for this time.",
		Type: Duration, Max: int64(time.Hour), Networks: faultStream, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.Faults.SlowClose) },
	}, {
		Name: "fault.close_after", Summary: "Close a connection so long after the fault came upon it; what is held is lost. 0 does not.",
		Type: Duration, Max: int64(day), Networks: faultStream, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.Faults.CloseAfter) },
	}, {
		Name: "fault.reset_after", Summary: "Reset a connection so long after the fault came upon it. 0 does not; 1ns does at once.",
		Type: Duration, Max: int64(day), Networks: faultStream, Effect: Live, Default: DurationValue(0),
		tunable: func(t *Tunables) *int64 { return (*int64)(&t.Faults.ResetAfter) },
	}, {
		Name: "fault.close_after_bytes", Summary: "End a stream after so many bytes in one direction: no more come from the client, or go to it. 0 does not.",
		Type: Bytes, Max: 1 << 50, Networks: faultStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.Faults.CloseBytes },
	}, {
		Name: "fault.reset_after_bytes", Summary: "Reset a connection after so many bytes in one direction. 0 does not.",
		Type: Bytes, Max: 1 << 50, Networks: faultStream, Effect: Live, Default: BytesValue(0),
		tunable: func(t *Tunables) *int64 { return &t.Faults.ResetBytes },
	}, {
		Name: "fault.loss_percent", Summary: "Of 100 datagrams of a source that is hit, how many are dropped, by chance, each way.",
		Type: Int, Max: 100, Networks: OnDatagram, Effect: Live, Default: IntValue(0),
		tunable: func(t *Tunables) *int64 { return &t.Faults.Loss },
	},
}
