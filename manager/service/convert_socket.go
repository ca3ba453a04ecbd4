package service

import (
	"math"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

func socketToPB(listener string, s listeners.SocketStatus) *pb.Socket {
	return &pb.Socket{
		Name: hexName(socketPrefix, s.Cookie), Listener: listenerPrefix + listener, Role: pb.Socket_ROLE_LISTENER,
		Fd: int32(s.FD), Inode: s.Inode, Local: addressToPB(s.Local), TcpState: pb.TcpState(s.State),
		WaitsFor: s.Waits.Names(), Queue: queueToPB(s.Queue), Memory: memoryToPB(s.Memory), CreateTime: timeToPB(s.Made),
	}
}

func queueToPB(q listeners.Queue) *pb.QueueInfo {
	return &pb.QueueInfo{
		AcceptQueue: q.Accept, AcceptQueueLimit: q.AcceptLimit, AcceptQueuePeak: q.AcceptPeak, ReceiveBytes: q.Receive, SendBytes: q.Send,
		UnsentBytes: q.Unsent, UserReceiveBytes: q.UserReceive, UserSendBytes: q.UserSend, Drops: q.Drops,
	}
}

func memoryToPB(m listeners.Memory) *pb.SocketMemory {
	return &pb.SocketMemory{
		ReceiveAllocBytes: m[listeners.MemReceiveAlloc], ReceiveLimitBytes: m[listeners.MemReceiveLimit],
		SendAllocBytes: m[listeners.MemSendAlloc], SendLimitBytes: m[listeners.MemSendLimit],
		ForwardAllocBytes: m[listeners.MemForwardAlloc], SendQueuedBytes: m[listeners.MemSendQueued],
		OptionBytes: m[listeners.MemOptions], BacklogBytes: m[listeners.MemBacklog], Drops: m[listeners.MemDrops],
	}
}

var connStateToPB = map[listeners.ConnState]pb.Connection_State{
	listeners.ConnHandshaking: pb.Connection_STATE_HANDSHAKING,
	listeners.ConnConnecting:  pb.Connection_STATE_CONNECTING,
	listeners.ConnOpen:        pb.Connection_STATE_OPEN, listeners.ConnHalfClosed: pb.Connection_STATE_HALF_CLOSED,
	listeners.ConnClosing: pb.Connection_STATE_CLOSING, listeners.ConnClosed: pb.Connection_STATE_CLOSED,
}

// faultsToPB makes a list of what is on: delay, slice_bytes.
func faultsToPB(on string) []string {
	if on == "" {
		return nil
	}
	return strings.Split(on, ", ")
}

func connToPB(c listeners.ConnStatus) *pb.Connection {
	out := connFacts(c)
	if c.Peer != nil {
		out.Peer.Command = listeners.CommandOf(int(c.Peer.Pid))
	}
	return out
}

// connFacts is connToPB without the name of the peer's process.
func connFacts(c listeners.ConnStatus) *pb.Connection {
	out := &pb.Connection{
		Name: hexName(connectionPrefix, c.Cookie), Listener: listenerPrefix + c.Listener, Network: networkToPB[c.Network],
		State: connStateToPB[c.State], Local: addressToPB(c.Local), Remote: addressToPB(c.Remote),
		CreateTime: timeToPB(c.Opened), LastActiveTime: timeToPB(c.Active),
		ReceivedBytes: c.Received, SentBytes: c.Sent, ReceivedMessages: uint64(c.Reads), SentMessages: uint64(c.Writes),
		CloseReason: c.CloseWord(), Fd: int32(c.FD), WaitsFor: c.Waits.Names(),
	}
	if c.Proxied != (listeners.Address{}) {
		out.ProxiedRemote = addressToPB(c.Proxied)
	}
	if c.Upstream != (listeners.Address{}) {
		out.Upstream = addressToPB(c.Upstream)
	}
	if t := c.TLS; t != nil {
		out.Tls = &pb.TlsInfo{Version: t.Version, CipherSuite: t.CipherSuite, ServerName: t.ServerName, Alpn: t.ALPN, ClientSubject: t.ClientSubject}
	}
	out.ProgramPid, out.Faults = int32(c.Program), faultsToPB(c.Faults)
	if c.Peer != nil {
		out.Peer = &pb.PeerCredentials{Pid: c.Peer.Pid, Uid: c.Peer.Uid, Gid: c.Peer.Gid}
	}
	if c.Detail&listeners.DetailSize != 0 {
		out.Inode, out.Queue, out.Memory = c.Inode, queueToPB(c.Queue), memoryToPB(c.Memory)
	}
	if c.TCP != nil {
		out.TcpInfo = tcpInfoToPB(c.TCP, c.Congestion)
	}
	return out
}

// congestionStates are tcp_ca_state of linux/tcp.h, in its order.
var congestionStates = []string{"open", "disorder", "cwr", "recovery", "loss"}

// negotiated are the bits of tcpi_options, from the lowest.
var negotiated = []string{"timestamps", "sack", "wscale", "ecn", "ecn_seen", "syn_data", "usec_timestamps", "tfo_child"}

func tcpInfoToPB(t *listeners.TCPInfo, congestion string) *pb.TcpInfo {
	us := func(n uint64) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Microsecond) }
	ms := func(n uint32) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }
	out := &pb.TcpInfo{
		State: pb.TcpState(t.State), Congestion: congestion,
		Rtt: us(uint64(t.Rtt)), RttVariance: us(uint64(t.Rttvar)), ReceiveRtt: us(uint64(t.Rcv_rtt)),
		Rto: us(uint64(t.Rto)), Ato: us(uint64(t.Ato)),
		SendMssBytes: t.Snd_mss, ReceiveMssBytes: t.Rcv_mss, AdvertisedMssBytes: t.Advmss, PathMtuBytes: t.Pmtu,
		CongestionWindow: t.Snd_cwnd, SlowStartThreshold: t.Snd_ssthresh,
		Unacked: t.Unacked, Sacked: t.Sacked, Lost: t.Lost, Retransmitting: t.Retrans, TotalRetransmits: t.Total_retrans,
		Retransmits: uint32(t.Retransmits), Probes: uint32(t.Probes), Backoff: uint32(t.Backoff),
		BytesAcked: t.Bytes_acked, BytesReceived: t.Bytes_received, BytesSent: t.Bytes_sent, BytesRetransmitted: t.Bytes_retrans,
		SegmentsOut: t.Segs_out, SegmentsIn: t.Segs_in, DataSegmentsOut: t.Data_segs_out, DataSegmentsIn: t.Data_segs_in,
		NotSentBytes: t.Notsent_bytes, PacingBytesPerSecond: t.Pacing_rate, DeliveryBytesPerSecond: t.Delivery_rate,
		Delivered: t.Delivered, DeliveredCe: t.Delivered_ce, BusyTime: us(t.Busy_time),
		ReceiveWindowLimitedTime: us(t.Rwnd_limited), SendBufferLimitedTime: us(t.Sndbuf_limited),
		Reorderings: t.Reord_seen, DsackDuplicates: t.Dsack_dups, SendWindowBytes: t.Snd_wnd, ReceiveWindowBytes: t.Rcv_wnd,
		ReceiveSpaceBytes: t.Rcv_space, ReceiveOutOfOrder: t.Rcv_ooopack,
		LastDataSent: ms(t.Last_data_sent), LastDataReceived: ms(t.Last_data_recv), LastAckReceived: ms(t.Last_ack_recv),
		KernelStructBytes: uint32(t.Size), ReceiveSlowStartThresholdBytes: t.Rcv_ssthresh, ReorderingDistance: t.Reordering,
		MaxPacingBytesPerSecond: t.Max_pacing_rate, Rehashes: t.Rehash, TotalRtos: uint32(t.Total_rto),
		RtoRecoveries: uint32(t.Total_rto_recoveries), RtoTime: ms(t.Total_rto_time), ReceivedCe: t.Received_ce,
		DeliveredEct1Bytes: t.Delivered_e1_bytes, DeliveredEct0Bytes: t.Delivered_e0_bytes, DeliveredCeBytes: t.Delivered_ce_bytes,
		ReceivedEct1Bytes: t.Received_e1_bytes, ReceivedEct0Bytes: t.Received_e0_bytes, ReceivedCeBytes: t.Received_ce_bytes,
	}
	if t.Min_rtt != math.MaxUint32 { // it is, until something was measured
		out.MinRtt = us(uint64(t.Min_rtt))
	}
	if int(t.Ca_state) < len(congestionStates) {
		out.CongestionState = congestionStates[t.Ca_state]
	}
	for i, name := range negotiated {
		if t.Options&(1<<i) != 0 {
			out.Negotiated = append(out.Negotiated, name)
		}
	}
	// Two bytes of bit fields after tcpi_options, which x/sys leaves unnamed:
	// snd_wscale:4, rcv_wscale:4; delivery_rate_app_limited:1, ...
	bits := (*[8]byte)(unsafe.Pointer(&t.TCPInfo))
	out.SendWindowScale, out.ReceiveWindowScale = uint32(bits[6]&0xf), uint32(bits[6]>>4)
	out.DeliveryAppLimited = bits[7]&1 != 0
	return out
}

var optionTypeToPB = map[listeners.Type]pb.OptionSpec_Type{
	listeners.Bool: pb.OptionSpec_TYPE_BOOL, listeners.Int: pb.OptionSpec_TYPE_INT, listeners.Bytes: pb.OptionSpec_TYPE_BYTES_COUNT,
	listeners.Duration: pb.OptionSpec_TYPE_DURATION, listeners.String: pb.OptionSpec_TYPE_STRING, listeners.Raw: pb.OptionSpec_TYPE_BYTES,
}

var effectToPB = map[listeners.Effect]pb.OptionSpec_Effect{
	listeners.Live: pb.OptionSpec_EFFECT_LIVE, listeners.NewConnections: pb.OptionSpec_EFFECT_NEW_CONNECTIONS,
	listeners.Rebind: pb.OptionSpec_EFFECT_REBIND,
}

func optionToPB(o *listeners.Option) *pb.OptionSpec {
	def, supported := o.Probe()
	clamp, _ := o.ClampValue()
	out := &pb.OptionSpec{
		Name: o.Name, KernelName: o.Kernel, Level: int32(o.Level), Option: int32(o.Number), Type: optionTypeToPB[o.Type],
		Effect: effectToPB[o.Effect], Inherited: o.Inherited, Capability: o.Capability, ClampedBy: o.Clamp, ClampValue: clamp,
		Choices: o.Choices(), Summary: o.Summary, Supported: supported, DefaultValue: valueToPB(def),
	}
	for _, n := range o.Networks.Networks() {
		out.Networks = append(out.Networks, networkToPB[n])
	}
	if lo, hi, ok := o.Range(); ok {
		out.Min, out.Max = &lo, &hi
	}
	return out
}

var outcomeToPB = map[listeners.Outcome]pb.OptionResult_Outcome{
	listeners.Applied: pb.OptionResult_OUTCOME_APPLIED, listeners.Clamped: pb.OptionResult_OUTCOME_CLAMPED,
	listeners.Unchanged: pb.OptionResult_OUTCOME_UNCHANGED, listeners.Deferred: pb.OptionResult_OUTCOME_DEFERRED,
	listeners.NeedsRebind: pb.OptionResult_OUTCOME_NEEDS_REBIND, listeners.Failed: pb.OptionResult_OUTCOME_FAILED,
}

func resultToPB(target string, r listeners.Result) *pb.OptionResult {
	if r.Outcome == listeners.NeedsRebind {
		r.Reason = listeners.OptionNeedsRebind
	}
	return &pb.OptionResult{
		Target: target, Name: r.Option.Name, Requested: valueToPB(r.Requested), Previous: valueToPB(r.Previous),
		Effective: valueToPB(r.Effective), Outcome: outcomeToPB[r.Outcome], Errno: r.Errno, Message: r.Message, Connections: r.Connections,
		Reason: string(r.Reason),
	}
}

// The numbers of TcpState are the kernel's own.
var _ = [1]struct{}{}[int(pb.TcpState_TCP_STATE_LISTEN)-unix.BPF_TCP_LISTEN]
