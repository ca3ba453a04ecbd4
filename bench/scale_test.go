package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// What a connection and a listener cost does not grow with how many there are,
// and a daemon with many that do nothing sleeps. SCALE=1 has 19,000 of each and
// watches them for 5 s.
//
// Bounds are wide: a machine may be busy, and -race makes all larger. What is
// compared is the processor time and the memory of one size with another's.
func TestScale(t *testing.T) {
	cpus, err := pickCPUs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	sizes, hold := scaleSizes(200, 1000), time.Second/2
	bytes := map[string]float64{"connections": 32 << 10, "listeners": 256 << 10} // -race has eight for one
	if os.Getenv("SCALE") != "" {
		bytes = map[string]float64{"connections": 2 << 10, "listeners": 24 << 10}
		sizes, hold = scaleSizes(1000, 5000, 10_000, 19_000), 5*time.Second
	}
	if len(sizes) < 2 {
		t.Skip("too few descriptors: see ulimit -n")
	}
	const grown, wakes = 4, 60
	for what, run := range map[string]func() ([]scaling, error){
		"connections": func() ([]scaling, error) { return cfg.scaleConns(t.Context(), cpus, sizes, hold) },
		"listeners":   func() ([]scaling, error) { return cfg.scaleListeners(t.Context(), cpus, sizes, hold) },
	} {
		all, err := run()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var table strings.Builder
		printScale(&report{w: &table}, what, all)
		t.Log(table.String())
		first, last := all[0], all[len(all)-1]
		for name, cost := range map[string][2]time.Duration{
			"made": {first.made, last.made}, "listed": {first.list, last.list}, "tuned": {first.tune, last.tune},
		} {
			if cost[1] > grown*cost[0]+10*time.Microsecond {
				t.Errorf("each of %d %s takes %v of a processor to be %s, each of %d %v", last.n, what, cost[1], name, first.n, cost[0])
			}
		}
		if last.wakes > wakes {
			t.Errorf("%.0f wake-ups a second with %d idle %s", last.wakes, last.n, what)
		}
		if most := bytes[what]; slope(first, last) > most {
			t.Errorf("%.0f bytes for each of %s", slope(first, last), what)
		}
	}
}
