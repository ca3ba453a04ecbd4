package service_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (d *daemon) snapshot(filter string, histograms bool) *pb.Snapshot {
	d.t.Helper()
	resp, err := d.stats.GetStats(d.ctx, &pb.GetStatsRequest{Filter: filter, Histograms: histograms})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetSnapshot()
}

// What is counted is what was done, and the filter says of whom.
func TestGetStats(t *testing.T) {
	oneLoop(t)
	d := serve(t)
	web := d.create("web", "tcp://127.0.0.1:0")
	d.create("api", "tcp://127.0.0.1:0", "udp://127.0.0.1:0")
	c := ping(t, web.GetStatus().GetBound()[0])
	s := d.snapshot("", true)
	if len(s.GetListeners()) != 2 || s.GetListeners()[0].GetName() != "listeners/api" {
		t.Fatalf("%v", s.GetListeners())
	}
	l := s.GetListeners()[1]
	if l.GetAccepted() != 1 || l.GetActive() != 1 || l.GetActivePeak() != 1 || l.GetReceivedBytes() == 0 || l.GetSentBytes() != l.GetReceivedBytes() ||
		l.GetAcceptQueueLimit() == 0 || len(l.GetClosed()) != 0 || len(l.GetRejected()) != 0 || len(l.GetErrors()) != 0 {
		t.Errorf("%v", l)
	}
	for name, h := range map[string]*pb.Histogram{"accept_delay": l.GetAcceptDelay(), "first_byte_delay": l.GetFirstByteDelay(), "turn_duration": s.GetLoop().GetTurnDuration()} {
		if h.GetUnit() != "seconds" || h.GetCount() == 0 || len(h.GetCounts()) != len(h.GetBounds())+1 || h.GetBounds()[0] != 1e-6 || h.GetMax() > h.GetSum() {
			t.Errorf("%s: %v", name, h)
		}
	}
	if s.GetListeners()[0].GetAcceptDelay() != nil {
		t.Error("a listener without connections has no histograms")
	}
	loop, process := s.GetLoop(), s.GetProcess()
	if loop.GetDescriptors() != 4 || loop.GetPoller() != "epoll" || loop.GetTurns() == 0 || loop.GetBusyRatio() > 1 {
		t.Errorf("%v", loop)
	}
	if process.GetResidentBytes() < 1<<20 || process.GetHeapBytes() < 1<<10 || process.GetOpenFiles() < 4 || process.GetOpenFilesLimit() < 100 ||
		process.GetGoroutines() < 2 || process.GetCpuTime().AsDuration() <= 0 {
		t.Errorf("%v", process)
	}
	c.Close()
	eventually(t, func() bool {
		l = d.snapshot("", true).GetListeners()[1]
		return l.GetClosed()["eof"] == 1 && l.GetConnectionDuration().GetCount() == 1 && l.GetRtt().GetCount() == 1
	})
	if some := d.snapshot(`name = "listeners/w*" AND status.active_connections = 0`, false).GetListeners(); len(some) != 1 || some[0].GetAcceptDelay() != nil {
		t.Errorf("%v", some)
	}
	if n := len(d.snapshot(`name = "nix"`, false).GetListeners()); n != 0 {
		t.Errorf("%d", n)
	}
	_, err := d.stats.GetStats(d.ctx, &pb.GetStatsRequest{Filter: "accepted = 1"})
	wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
}

// Peaks and histograms begin anew, of those that match; counters stay.
func TestResetPeaks(t *testing.T) {
	d := serve(t)
	for _, id := range []string{"web", "api"} {
		ping(t, d.create(id, "tcp://127.0.0.1:0").GetStatus().GetBound()[0]).Close()
	}
	eventually(t, func() bool {
		all := d.snapshot("", false).GetListeners()
		return all[0].GetActive() == 0 && all[1].GetActive() == 0
	})
	turns := d.snapshot("", false).GetLoop().GetTurnDuration().GetCount()
	r, err := d.stats.ResetPeaks(d.ctx, &pb.ResetPeaksRequest{Filter: `name = "listeners/web"`})
	if err != nil || r.GetListeners() != 1 {
		t.Fatal(r, err)
	}
	s := d.snapshot("", true)
	api, web := s.GetListeners()[0], s.GetListeners()[1]
	if api.GetActivePeak() != 1 || api.GetConnectionDuration().GetCount() != 1 || web.GetActivePeak() != 0 || web.GetConnectionDuration() != nil || web.GetAccepted() != 1 {
		t.Errorf("%v, %v", api, web)
	}
	if s.GetLoop().GetTurnDuration().GetCount() < turns {
		t.Error("the loop was set back with a filter")
	}
	if _, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "api"}); err != nil {
		t.Fatal(err)
	}
	if r, err = d.stats.ResetPeaks(d.ctx, &pb.ResetPeaksRequest{}); err != nil || r.GetListeners() != 2 {
		t.Fatal(r, err)
	}
	s = d.snapshot("", true)
	if l := s.GetListeners()[0]; l.GetActivePeak() != 0 || l.GetConnectionDuration() != nil || l.GetAccepted() != 1 {
		t.Errorf("%v", l)
	}
	if n := s.GetLoop().GetTurnDuration().GetCount(); n >= turns {
		t.Errorf("%d turns, %d before", n, turns)
	}
}

func TestWatchStats(t *testing.T) {
	d := serve(t)
	web := d.create("web", "tcp://127.0.0.1:0")
	stream, err := d.stats.WatchStats(d.ctx, &pb.WatchStatsRequest{Interval: durationpb.New(100 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	ping(t, web.GetStatus().GetBound()[0]).Close()
	for {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		gap := r.GetSnapshot().GetTime().AsTime().Sub(first.GetSnapshot().GetTime().AsTime())
		if gap < 90*time.Millisecond {
			t.Errorf("%v between two", gap)
		}
		// A rate is there once the second has passed.
		if rate := r.GetSnapshot().GetListeners()[0].GetAcceptRate(); rate.GetPerSecond_60S() > 0 {
			if rate.GetPerSecond_60S() > 1.0/55 || rate.GetPerSecond_10S() < rate.GetPerSecond_60S() || rate.GetPerSecond_1S() < rate.GetPerSecond_10S() {
				t.Errorf("%v", rate)
			}
			break
		}
	}
	for _, interval := range []time.Duration{-time.Second, 99 * time.Millisecond, 2 * time.Hour} {
		stream, err := d.stats.WatchStats(d.ctx, &pb.WatchStatsRequest{Interval: durationpb.New(interval)})
		if err == nil {
			_, err = stream.Recv()
		}
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "interval")
	}
}
