package main

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// testConfig has the test program itself as daemon. Servers die with the thread
// that started them.
func testConfig(t *testing.T) *config {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &config{rounds: 1, window: testWindow, daemon: self}
}

// Every kind of load goes through every server that is installed, and the results
// say so.
func TestBesidePeers(t *testing.T) {
	cpus, err := pickCPUs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.cases = []string{"http-64", "churn", "forward-bulk", "udp-forward"}
	var printed strings.Builder
	res, err := cfg.peers(t.Context(), &report{w: &printed}, cpus)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := res.write(dir+"/r.json", dir+"/r.md"); err != nil {
		t.Fatal(err)
	}
	if len(res.Tables) != len(cfg.cases) {
		t.Fatalf("%d tables", len(res.Tables))
	}
	absent := map[string]bool{}
	for _, m := range res.Missing {
		absent[m.Name] = true
	}
	for _, table := range res.Tables {
		want := []string{reference, "sockmgr", again}
		for _, w := range workloads() {
			for _, p := range w.programs {
				if w.name == table.Name && !absent[p.name] {
					want = append(want, p.name)
				}
			}
		}
		var got []string
		for _, r := range table.Rows {
			got = append(got, r.Server)
			if r.Rate <= 0 || r.CPU < 0 {
				t.Errorf("%s: %+v", table.Name, r)
			}
		}
		if strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("%s: servers are %v, want %v", table.Name, got, want)
		}
		for _, file := range []string{"/r.json", "/r.md"} {
			if text, err := os.ReadFile(dir + file); err != nil || !strings.Contains(string(text), table.What) {
				t.Errorf("%s is not in %s: %v", table.Name, file, err)
			}
		}
	}
}

// The loads that only the case profile has go through the daemon.
func TestProfiledLoads(t *testing.T) {
	cpus, err := pickCPUs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	for _, w := range profiled()[len(workloads()):] {
		b, err := openBackend()
		if err != nil {
			t.Fatal(err)
		}
		d, err := startDaemon(cpus, cfg.daemon)
		if err != nil {
			b.close()
			t.Fatal(err)
		}
		var s sample
		if d.at, err = d.open(t.Context(), "bench", w.uri, w.handler(b)); err == nil {
			s, err = cfg.tryLonger(t.Context(), w, b, d)
		}
		d.stop()
		b.close()
		if err != nil || s.rate <= 0 {
			t.Errorf("%s: %+v, %v", w.name, s, err)
		}
	}
}

// What the children of a server use counts, while they run and when they have
// ended.
func TestTreeCPU(t *testing.T) {
	cpus, err := pickCPUs()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const spin = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
	p, line, err := startProcess(cpus.server, "/bin/sh", "-c", "("+spin+"); ("+spin+"; echo done; read end); :")
	if err != nil {
		t.Fatal(line, err)
	}
	defer p.stop()
	if own, tree := cpuClock(p.pid()), treeCPU(p.pid()); tree < own+10*time.Millisecond {
		t.Errorf("%v with children, %v without", tree, own)
	}
}
