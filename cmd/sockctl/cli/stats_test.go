package cli

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (f *fake) GetStats(_ context.Context, req *pb.GetStatsRequest) (*pb.GetStatsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.snapshots[0]
	if req.GetFilter() == `name = "listeners/nix"` {
		s = &pb.Snapshot{}
	}
	return &pb.GetStatsResponse{Snapshot: s}, nil
}

func (f *fake) ResetPeaks(context.Context, *pb.ResetPeaksRequest) (*pb.ResetPeaksResponse, error) {
	return &pb.ResetPeaksResponse{Listeners: 1}, nil
}

// WatchStats sends what there is and then waits, or ends when there is nothing.
func (f *fake) WatchStats(_ *pb.WatchStatsRequest, s grpc.ServerStreamingServer[pb.WatchStatsResponse]) error {
	for _, snapshot := range f.snapshots {
		if err := s.Send(&pb.WatchStatsResponse{Snapshot: snapshot}); err != nil {
			return err
		}
	}
	if f.synced != nil {
		f.synced(f)
		return nil
	}
	<-s.Context().Done()
	return s.Context().Err()
}

func histogram(counts ...uint64) *pb.Histogram {
	h := &pb.Histogram{Unit: "seconds", Counts: counts, Max: 0.004}
	for i, n := range counts {
		h.Count += n
		if i < len(counts)-1 {
			h.Bounds = append(h.Bounds, 0.001*float64(int(1)<<i))
		}
	}
	return h
}

// numbers are of a daemon with two listeners, the second of them busy.
func numbers() *pb.Snapshot {
	return &pb.Snapshot{
		Time:    timestamppb.New(now),
		Loop:    &pb.LoopStats{Turns: 10, BusyRatio: 0.034, TurnRate: &pb.Rate{PerSecond_1S: 1200}, TurnDuration: histogram(90, 9, 1, 0), Stalls: 1, Poller: "epoll"},
		Process: &pb.ProcessStats{ResidentBytes: 20 << 20, CpuRatio: 0.5, OpenFiles: 12, OpenFilesLimit: 1024, Goroutines: 9},
		Network: &pb.NetworkStats{ListenOverflows: 3, ListenDrops: 1},
		Listeners: []*pb.ListenerStats{
			{Name: "listeners/dns", ReceivedBytes: 10, SentDatagrams: 1},
			{
				Name: "listeners/web", Accepted: 7, AcceptRate: &pb.Rate{PerSecond_1S: 2, PerSecond_10S: 0.25}, Active: 2, ActivePeak: 5,
				Rejected: map[string]uint64{"limit": 1, "send": 2}, Errors: map[string]uint64{"read:ECONNRESET": 1}, DropsTotal: 4,
				ReceivedBytes: 2048, ReceiveRate: &pb.Rate{PerSecond_1S: 100, PerSecond_10S: 1024}, SentBytes: 1,
				AcceptQueue: 3, AcceptQueueLimit: 2, AcceptQueuePeak: 3, FirstByteDelay: histogram(0, 1, 1, 0), ConnectionDuration: histogram(1),
			},
		},
	}
}

func TestStats(t *testing.T) {
	f := newFake(t)
	f.snapshots = []*pb.Snapshot{numbers()}
	want(t, f.run(t, "stats"), 0, `
NAME  ACCEPTED  ACC/S  CONNS  PEAK  QUEUE  REJECTED  DROPS  IN      IN/S    OUT  OUT/S
dns   0         0      0      0     -      0         0      10B     0B      0B   0B
web   7         0.2    2      5     3/2    3         4      2.0KiB  1.0KiB  1B   0B
`, "")
	f.requests()
	want(t, f.run(t, "stats", "web", "-o", "wide", "--reset-peaks"), 0, `
NAME  ACCEPTED  ACC/S  CONNS  PEAK  QUEUE  REJECTED  DROPS  IN      IN/S    OUT  OUT/S  QUEUE-PEAK  ACCEPT-P99  FIRST-BYTE-P50  FIRST-BYTE-P99  LIFE-P50  RTT-P50  CLOSED  ERRORS
web   7         0.2    2      5     3/2    3         4      2.0KiB  1.0KiB  1B   0B     3           -           2ms             4ms             4ms       -        -       read:ECONNRESET=1
`, "")
	same(t, "requests", f.requests(), `
GetStats {"filter":"name = \"listeners/web\"","histograms":true}
ResetPeaks {"filter":"name = \"listeners/web\""}`)
	want(t, f.run(t, "stats", "nix"), 4, "", "Error: nix: no such listener\n  reason LISTENER_NOT_FOUND\n")
	if r := f.run(t, "stats", "web", "--filter", "x"); r.exit != 2 {
		t.Errorf("%+v", r)
	}
	r := f.run(t, "stats", "web", "dns", "-o", "json")
	for _, part := range []string{`"acceptQueuePeak": 3`, `"busyRatio": 0.034`, `"listenOverflows": 3`, `"read:ECONNRESET": 1`, `"name": "listeners/dns"`} {
		if r.exit != 0 || !strings.Contains(r.stdout, part) {
			t.Errorf("no %s in %+v", part, r)
		}
	}
	want(t, f.run(t, "stats", "-o", "name"), 0, "dns\nweb\n", "")
}

const topFrame = `
loop     3.4% busy  1200 turns/s      p99 turn 2ms      longest 4ms    1 stall          epoll
process  50.0% CPU  20.0MiB resident  12 of 1024 files  9 goroutines
network  3 overflows  1 drop          0 SYN cookies     0 retransmitted

NAME  CONNS  PEAK  ACC/S  IN/S  OUT/S  QUEUE  QUEUE-PEAK  DROPS  REJECTED
web   2      5     2.0    100B  0B     3/2    3           4      3
dns   0      0     0      0B    0B     -      0           0      0
`

// Where there is no terminal top prints one frame, the busiest first.
func TestTopOnce(t *testing.T) {
	f := newFake(t)
	f.snapshots = []*pb.Snapshot{numbers()}
	for _, args := range [][]string{{"top"}, {"top", "--once"}} {
		r := f.run(t, args...)
		if got := columns(r.stdout); r.exit != 0 || got != columns(strings.TrimPrefix(topFrame, "\n")) {
			t.Errorf("exit %d:\n%s", r.exit, r.stdout)
		}
	}
	if r := f.run(t, "top", "-o", "json"); r.exit != 0 || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("%+v", r)
	}
	for _, interval := range []string{"99ms", "-1s", "2h", "x"} {
		if r := f.run(t, "top", "--interval", interval); r.exit != 2 {
			t.Errorf("%s: %+v", interval, r)
		}
	}
}

// columns is text with one space between words.
func columns(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// terminal is a Screen of which a test sees everything.
type terminal struct {
	bytes.Buffer
	keys     io.Reader
	raw      bool
	restored bool
}

func (s *terminal) screen() *Screen {
	return &Screen{
		Size: func() (int, int, error) { return 90, 7, nil },
		Keys: func() (func() error, error) {
			s.raw = true
			return func() error { s.restored = true; return nil }, nil
		},
	}
}

func (f *fake) onScreen(t *testing.T, s *terminal, args ...string) (exit int, stderr string) {
	t.Helper()
	var errs bytes.Buffer
	exit = Run(t.Context(), Env{
		Stdin: s.keys, Stdout: s, Stderr: &errs, Getenv: func(string) string { return "" }, Now: func() time.Time { return now }, Screen: s.screen(),
	}, append([]string{"--addr", "unix://" + f.path}, args...))
	return exit, errs.String()
}

// Frames are drawn over each other until q, and fit; the terminal is left as it
// was.
func TestTopScreen(t *testing.T) {
	f := newFake(t)
	f.snapshots = []*pb.Snapshot{numbers(), numbers()}
	f.snapshots[1].Loop.TurnDuration = histogram(91, 9, 1, 0) // one turn since, a short one
	keys, typist := io.Pipe()
	s := &terminal{keys: keys}
	f.snapshots[1].Loop.Stalls = 2
	done := make(chan int, 1)
	go func() {
		exit, _ := f.onScreen(t, s, "top")
		done <- exit
	}()
	if _, err := typist.Write([]byte("xq")); err != nil { // read only once top watches the keys
		t.Fatal(err)
	}
	if exit := <-done; exit != 0 || !s.raw || !s.restored {
		t.Errorf("exit %d, raw %v, restored %v", exit, s.raw, s.restored)
	}
}

func TestTopDaemonGone(t *testing.T) {
	f := newFake(t)
	f.snapshots = []*pb.Snapshot{numbers(), numbers()}
	f.snapshots[1].Loop.TurnDuration = histogram(91, 9, 1, 0)
	f.synced = func(*fake) {} // it ends the watch
	keys, typist := io.Pipe()
	defer typist.Close()
	s := &terminal{keys: keys}
	exit, stderr := f.onScreen(t, s, "top")
	if exit != 8 || !s.restored || !strings.Contains(stderr, "ended the watch") {
		t.Errorf("exit %d, restored %v: %s", exit, s.restored, stderr)
	}
	frames := strings.Split(s.String(), home)
	if len(frames) != 3 || frames[0] != clearAll {
		t.Fatalf("%q", frames)
	}
	for i, p99 := range []string{"p99 turn 2ms", "p99 turn 1ms"} {
		lines := strings.Split(strings.TrimSuffix(frames[i+1], clearRest), clearLine+"\r\n")
		if len(lines) > 7 || !strings.Contains(strings.Join(lines, "\n"), p99) {
			t.Errorf("%d lines: %q", len(lines), lines)
		}
		if slices.ContainsFunc(lines, func(l string) bool { return len([]rune(l)) > 90 }) {
			t.Errorf("wider than the terminal: %q", lines)
		}
	}
}

func TestTopInterrupted(t *testing.T) {
	f := newFake(t)
	f.snapshots = []*pb.Snapshot{numbers()}
	s := &terminal{keys: strings.NewReader("\x03")}
	if exit, stderr := f.onScreen(t, s, "top"); exit != 130 || !s.restored {
		t.Errorf("exit %d, restored %v: %s", exit, s.restored, stderr)
	}
}

func TestQuantile(t *testing.T) {
	h := histogram(90, 9, 1, 0)
	for q, value := range map[float64]float64{0.5: 0.001, 0.9: 0.001, 0.99: 0.002, 0.999: 0.004, 1: 0.004} {
		if got, ok := quantile(h, q); !ok || got != value {
			t.Errorf("%v: %v, %v", q, got, ok)
		}
	}
	if _, ok := quantile(nil, 0.5); ok {
		t.Error("there is nothing in it")
	}
	if d := since(histogram(5, 5), histogram(3, 5)); d.GetCount() != 2 || !slices.Equal(d.GetCounts(), []uint64{2, 0}) {
		t.Errorf("%v", d)
	}
	if d := since(histogram(1, 5), histogram(3, 1)); d.GetCount() != 6 { // it was set back
		t.Errorf("%v", d)
	}
	for seconds, text := range map[float64]string{0: "0us", 0.000064: "64us", 0.00102: "1.02ms", 0.5: "500ms", 4.2: "4.2s", 90: "1m30s"} {
		if got := span(seconds); got != text {
			t.Errorf("%v: %s, not %s", seconds, got, text)
		}
	}
}
