package service

import (
	"context"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// snapshot reads all numbers, of the listeners that match.
func (s *statsService) snapshot(ctx context.Context, want filter, histograms bool) (*pb.Snapshot, error) {
	loops, err := s.m.Loops(ctx)
	if err != nil {
		return nil, err
	}
	out := &pb.Snapshot{Time: timestamppb.Now(), Process: processToPB(s.m.Process())}
	for i := range loops {
		out.Loops = append(out.Loops, loopToPB(&loops[i]))
		out.Loops[i].Poller = s.m.Poller()
	}
	out.Loop = out.Loops[0]
	if len(loops) == 1 {
		out.Loops = nil
	}
	network, err := s.m.Network()
	if err != nil {
		return nil, err
	}
	out.Network = &pb.NetworkStats{
		ListenOverflows: network.ListenOverflows, ListenDrops: network.ListenDrops, SynCookiesSent: network.SyncookiesSent,
		SynQueueDrops: network.ReqQFullDrop, UdpReceiveBufferErrors: network.UDPReceiveBuffers,
		UdpSendBufferErrors: network.UDPSendBuffers, RetransmittedSegments: network.RetransSegs,
	}
	return out, s.m.Stats(ctx, "", math.MaxInt, histograms, func(of *manager.ListenerStats) {
		if want.matchInfo(of.Info) {
			out.Listeners = append(out.Listeners, listenerStatsToPB(of))
		}
	})
}

func loopToPB(s *manager.LoopStats) *pb.LoopStats {
	out := &pb.LoopStats{
		Turns: s.Turns, Events: s.Events, TurnRate: rateToPB(s.TurnRate), BusyRatio: s.BusyRatio, Stalls: s.Stalls,
		Connections: uint64(s.Connections), Descriptors: uint32(s.Descriptors), Timers: uint32(s.Timers), PendingCommands: uint32(s.Commands),
	}
	out.EventsPerTurn = histogramToPB(&s.EventsPerTurn, "events", 1)
	out.TurnDuration = timesToPB(&s.TurnDuration, time.Microsecond)
	out.CommandLatency = timesToPB(&s.CommandLatency, time.Microsecond)
	return out
}

func processToPB(s manager.ProcessStats) *pb.ProcessStats {
	return &pb.ProcessStats{
		ResidentBytes: s.Resident, HeapBytes: s.Heap, CpuTime: durationpb.New(s.CPU), CpuRatio: s.CPURatio,
		OpenFiles: uint32(s.OpenFiles), OpenFilesLimit: s.FilesLimit, Goroutines: uint32(s.Goroutines),
		LastGcPause: durationpb.New(s.LastGCPause),
	}
}

// A statsMessage is a ListenerStats in one piece: an answer may have ten thousand.
type statsMessage struct {
	stats                 pb.ListenerStats
	accept, receive, send pb.Rate
}

func listenerStatsToPB(s *manager.ListenerStats) *pb.ListenerStats {
	c, q := &s.Counters, &s.Live.Queue
	m := new(statsMessage)
	out := &m.stats
	out.Name, out.Accepted, out.AcceptRate = listenerPrefix+s.Name, c.Accepted, rateIn(&m.accept, s.AcceptRate)
	out.Active, out.ActivePeak = uint64(s.Live.Active), uint64(c.ActivePeak)
	out.ReceivedBytes, out.ReceiveRate = c.Received, rateIn(&m.receive, s.ReceiveRate)
	out.SentBytes, out.SendRate = c.Sent, rateIn(&m.send, s.SendRate)
	out.ReceivedDatagrams, out.SentDatagrams, out.DroppedDatagrams, out.DropsTotal = c.ReceivedDatagrams, c.SentDatagrams, s.Live.Lost, q.Drops
	out.AcceptQueue, out.AcceptQueueLimit, out.AcceptQueuePeak = q.Accept, q.AcceptLimit, q.AcceptPeak
	out.Rejected = countsToPB(c.RejectedBy[:], func(i int) string { return listeners.Rejection(i).String() })
	out.Closed = countsToPB(c.ClosedBy[:], func(i int) string { return listeners.CloseReason(i).String() })
	if len(c.Errors) > 0 {
		out.Errors = make(map[string]uint64, len(c.Errors))
		for e, n := range c.Errors {
			out.Errors[e.String()] = n
		}
	}
	if t := c.Times; t != nil {
		out.AcceptDelay = timesToPB(&t.AcceptDelay, time.Microsecond)
		out.FirstByteDelay = timesToPB(&t.FirstByte, time.Microsecond)
		out.ConnectionDuration = timesToPB(&t.Duration, time.Millisecond)
		out.Rtt = timesToPB(&t.RTT, time.Microsecond)
	}
	return out
}

// countsToPB leaves out what never happened.
func countsToPB(counts []uint64, word func(int) string) map[string]uint64 {
	var out map[string]uint64
	for i, n := range counts {
		if n == 0 {
			continue
		}
		if out == nil {
			out = map[string]uint64{}
		}
		out[word(i)] = n
	}
	return out
}

func rateToPB(r manager.Rate) *pb.Rate { return rateIn(new(pb.Rate), r) }

// rateIn is rateToPB, in a message that is there.
func rateIn(out *pb.Rate, r manager.Rate) *pb.Rate {
	out.PerSecond_1S, out.PerSecond_10S, out.PerSecond_60S, out.Series = r.Second, r.TenSeconds, r.Minute, r.Series
	if len(r.Series) > 0 {
		out.SeriesStep = durationpb.New(time.Second)
	}
	return out
}

// timesToPB says durations in seconds.
func timesToPB(h *manager.Histogram, unit time.Duration) *pb.Histogram {
	return histogramToPB(h, "seconds", unit.Seconds())
}

// histogramToPB says values in a unit of which one is so many.
func histogramToPB(h *manager.Histogram, name string, unit float64) *pb.Histogram {
	out := &pb.Histogram{Unit: name, Counts: h.Counts[:], Sum: float64(h.Sum) * unit, Count: h.Count(), Max: float64(h.Max) * unit}
	for i := range h.Counts[:len(h.Counts)-1] {
		out.Bounds = append(out.Bounds, float64(h.Bound(i))*unit)
	}
	return out
}
