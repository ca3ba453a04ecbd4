package metrics

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

const (
	// maxTimed is how many listeners a scrape has histograms of, the first by
	// name. One listener is 10 series and more, its histograms are 64.
	maxTimed = 500
	perRead  = 1000
	// readTime is the longest that a scrape waits for the loop.
	readTime = 10 * time.Second
)

// A collector makes metrics of what the manager has counted.
type collector struct {
	m               *manager.Manager
	version, commit string
}

// Describe says nothing: which series there are depends on the listeners.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads everything once.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	out <- buildInfo.one(1, c.version, c.commit)
	for _, read := range []func(context.Context, chan<- prometheus.Metric) error{c.loop, c.network, c.listeners} {
		if err := read(ctx, out); err != nil {
			out <- prometheus.NewInvalidMetric(buildInfo.desc, err) // the scrape fails, and says why
			return
		}
	}
}

func (c *collector) loop(ctx context.Context, out chan<- prometheus.Metric) error {
	all, err := c.m.Loops(ctx)
	if err != nil {
		return err
	}
	out <- loopCount.one(float64(len(all)))
	s := &all[0].Stats
	for i := range all {
		out <- loopConnections.one(float64(all[i].Connections), strconv.Itoa(i))
		if i > 0 {
			s.Add(&all[i].Stats)
		}
	}
	out <- loopTurns.one(float64(s.Turns))
	out <- loopEvents.one(float64(s.Events))
	out <- loopBusy.one(s.Busy.Seconds())
	out <- loopStalls.one(float64(s.Stalls))
	out <- loopDescriptors.one(float64(s.Descriptors))
	out <- loopTimers.one(float64(s.Timers))
	out <- loopCommands.one(float64(s.Commands))
	out <- histogram(loopTurnTime, &s.TurnDuration, time.Microsecond.Seconds())
	out <- histogram(loopLatency, &s.CommandLatency, time.Microsecond.Seconds())
	out <- histogram(loopPerTurn, &s.EventsPerTurn, 1)
	return nil
}

func (c *collector) network(_ context.Context, out chan<- prometheus.Metric) error {
	s, err := c.m.Network()
	if err != nil {
		return err
	}
	out <- networkOverflows.one(float64(s.ListenOverflows))
	out <- networkDrops.one(float64(s.ListenDrops))
	out <- networkCookies.one(float64(s.SyncookiesSent))
	out <- networkSynQueue.one(float64(s.ReqQFullDrop))
	out <- networkUDPIn.one(float64(s.UDPReceiveBuffers))
	out <- networkUDPOut.one(float64(s.UDPSendBuffers))
	out <- networkRetrans.one(float64(s.RetransSegs))
	return nil
}

func (c *collector) listeners(ctx context.Context, out chan<- prometheus.Metric) error {
	states := map[manager.State]int{}
	timed, untimed := 0, 0
	after, n := "", perRead
	each := func(s *manager.ListenerStats) {
		after = s.Name
		n++
		states[s.State]++
		listener(s, out)
		switch t := s.Counters.Times; {
		case t != nil && timed < maxTimed:
			timed++
			times(s.Name, t, out)
		case s.Counters.Accepted > 0:
			untimed++
		}
	}
	for n == perRead {
		n = 0
		if err := c.m.Stats(ctx, after, perRead, timed < maxTimed, each); err != nil {
			return err
		}
	}
	for state := manager.Running; state <= manager.Failed; state++ { // zero too: an alert needs the series
		out <- listenersNow.one(float64(states[state]), state.String())
	}
	out <- listenersUntimed.one(float64(untimed))
	return nil
}

// listener has what never happened only where alerts would miss it.
func listener(s *manager.ListenerStats, out chan<- prometheus.Metric) {
	c, q, class := &s.Counters, &s.Live.Queue, s.Spec.Class()
	out <- listenerReceived.one(float64(c.Received), s.Name)
	out <- listenerSent.one(float64(c.Sent), s.Name)
	out <- listenerDrops.one(float64(q.Drops), s.Name)
	if class&listeners.OnStream != 0 {
		out <- listenerAccepted.one(float64(c.Accepted), s.Name)
		out <- listenerActive.one(float64(s.Live.Active), s.Name)
		out <- listenerPeak.one(float64(c.ActivePeak), s.Name)
		out <- listenerQueue.one(float64(q.Accept), s.Name)
		out <- listenerLimit.one(float64(q.AcceptLimit), s.Name)
		out <- listenerQueuePeak.one(float64(q.AcceptPeak), s.Name)
	}
	if class&listeners.OnDatagram != 0 {
		out <- listenerGramsIn.one(float64(c.ReceivedDatagrams), s.Name)
		out <- listenerGramsOut.one(float64(c.SentDatagrams), s.Name)
	}
	for why, n := range c.RejectedBy {
		if n > 0 {
			out <- listenerRejected.one(float64(n), s.Name, listeners.Rejection(why).String())
		}
	}
	for why, n := range c.ClosedBy {
		if n > 0 {
			out <- listenerClosed.one(float64(n), s.Name, listeners.CloseReason(why).String())
		}
	}
	for e, n := range c.Errors {
		out <- listenerErrors.one(float64(n), s.Name, e.Call, unix.ErrnoName(e.Errno))
	}
}

func times(name string, t *listeners.Times, out chan<- prometheus.Metric) {
	out <- histogram(listenerAccept, &t.AcceptDelay, time.Microsecond.Seconds(), name)
	out <- histogram(listenerFirstByte, &t.FirstByte, time.Microsecond.Seconds(), name)
	out <- histogram(listenerDuration, &t.Duration, time.Millisecond.Seconds(), name)
	out <- histogram(listenerRTT, &t.RTT, time.Microsecond.Seconds(), name)
}

// histogram shows every second bucket, each a quarter of the next: a series
// costs more there than here.
func histogram(d *prometheus.Desc, h *manager.Histogram, unit float64, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Counts)/2)
	var below uint64
	for i, n := range h.Counts[:len(h.Counts)-1] {
		if below += n; i%2 == 0 {
			buckets[float64(h.Bound(i))*unit] = below
		}
	}
	return prometheus.MustNewConstHistogram(d, h.Count(), float64(h.Sum)*unit, buckets, labels...)
}
