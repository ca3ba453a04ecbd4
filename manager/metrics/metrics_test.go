package metrics_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/metrics"
)

// serve shows the numbers of a manager until the test ends, which then counts
// descriptors and goroutines.
func serve(t *testing.T) (*manager.Manager, *metrics.Server) {
	t.Helper()
	noLeaks(t)
	log := hclog.NewNullLogger()
	m, err := manager.New(manager.Config{Poller: "epoll", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := metrics.Bind("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := metrics.Serve(l, metrics.Config{Manager: m, Log: log, Version: "v1", Commit: "abc"})
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		err := m.Shutdown(context.Background(), 0)
		if errors.Is(err, listeners.DaemonDraining) {
			err = nil // the test has ended it
		}
		if err := errors.Join(err, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return m, s
}

func noLeaks(t *testing.T) {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // now the runtime has its own poller open
		r.Close()
		w.Close()
	}
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	fds, goroutines := count(), runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(20 * time.Second); count() > fds || runtime.NumGoroutine() > goroutines; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("%d descriptors, %d before; %d goroutines, %d before", count(), fds, runtime.NumGoroutine(), goroutines)
			}
		}
	})
}

func scrape(t *testing.T, s *metrics.Server) string {
	t.Helper()
	resp, err := http.Get(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err, string(text))
	}
	return string(text)
}

func create(t *testing.T, m *manager.Manager, name string, uris ...string) manager.Info {
	t.Helper()
	info, _, err := m.Create(t.Context(), name, manager.Draft{Listen: uris, Handler: listeners.Echo{}}, false)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// visit is a connection with one echo.
func visit(t *testing.T, info manager.Info) {
	t.Helper()
	c, err := net.Dial("tcp", info.Live.Bound[0].IP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
}

// Every name is as Prometheus wants it, of every kind of series there is.
func TestLint(t *testing.T) {
	m, s := serve(t)
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	visit(t, create(t, m, "web", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"))
	create(t, m, "gram", "unixgram://"+dir+"/g")
	c, err := net.Dial("unixgram", dir+"/g") // it has no name: rejected
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		text := scrape(t, s)
		missing := ""
		for _, series := range []string{
			`sockmgr_listener_rejected_total{listener="gram",reason="unanswerable"} 1`, `sockmgr_listener_closed_total{listener="web",reason="eof"} 1`,
			`sockmgr_listener_round_trip_seconds_count{listener="web"} 1`, `sockmgr_listener_received_datagrams_total{listener="gram"} 1`,
			`sockmgr_listeners{state="running"} 2`, `sockmgr_listeners{state="failed"} 0`, `sockmgr_build_info{commit="abc",version="v1"} 1`,
			`sockmgr_loop_command_latency_seconds_bucket{le="+Inf"} `, `sockmgr_network_retransmitted_segments_total `, `process_open_fds `, `go_goroutines `,
		} {
			if !strings.Contains(text, "\n"+series) {
				missing = series
			}
		}
		if missing == "" {
			problems, err := promlint.New(strings.NewReader(text)).Lint()
			if err != nil || len(problems) > 0 {
				t.Errorf("%v %+v", err, problems)
			}
			if strings.Contains(text, `sockmgr_listener_accepted_total{listener="gram"}`) {
				t.Error("a datagram socket accepts nothing")
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %s in:\n%s", missing, text)
		}
	}
}

// Only GET of /metrics is answered, and a manager that has ended is no success.
func TestServer(t *testing.T) {
	m, s := serve(t)
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{http.MethodGet, "", 200}, {http.MethodHead, "", 200}, {http.MethodPost, "", 405}, {http.MethodGet, "/x", 404}, {http.MethodGet, "/../", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, s.URL()+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.code && resp.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("%s %s: %s", tt.method, tt.path, resp.Status)
		}
	}
	if err := m.Shutdown(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusInternalServerError || !strings.Contains(string(text), "shutting down") {
		t.Errorf("%s: %s", resp.Status, text)
	}
}

// Connections that say nothing do not keep Prometheus out for long, nor Close.
func TestSilentClients(t *testing.T) {
	_, s := serve(t)
	address := strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/metrics")
	for range 20 { // more than are let in
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	c.SetDeadline(time.Now().Add(time.Minute))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("%q, %v", line, err)
	}
}

// Only so many listeners have histograms; the scrape says of how many they are
// left out.
func TestManyListeners(t *testing.T) {
	const many, most = 510, 500
	m, s := serve(t)
	for i := range many {
		visit(t, create(t, m, fmt.Sprintf("l%03d", i), "tcp://127.0.0.1:0"))
	}
	text := scrape(t, s)
	if n := strings.Count(text, "sockmgr_listener_accept_delay_seconds_count{"); n != most {
		t.Errorf("%d histograms", n)
	}
	if n := strings.Count(text, "sockmgr_listener_accepted_total{"); n != many {
		t.Errorf("%d counters", n)
	}
	if !strings.Contains(text, fmt.Sprintf("\nsockmgr_listeners_without_histograms %d\n", many-most)) {
		t.Error("it is not said how many are left out")
	}
}

func TestCheckAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:9464": "127.0.0.1:9464", "localhost:1": "127.0.0.1:1", "[::1]:9464": "[::1]:9464", "tcp://127.0.0.9:0": "127.0.0.9:0",
		"[::ffff:127.0.0.1]:5": "[::ffff:127.0.0.1]:5",
	} {
		if got, err := metrics.CheckAddress(text); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "9464", ":9464", "0.0.0.0:9464", "[::]:9464", "192.168.0.1:1", "example.org:1", "127.0.0.1", "127.0.0.1:65536", "unix:///x", "localhost:", "[::ffff:0.0.0.0]:1"} {
		if got, err := metrics.CheckAddress(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}
