package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// A daemon at rest, daemons with one loop and two, and one that collects garbage are
// measured.
func TestDaemons(t *testing.T) {
	cpus, err := pickCPUs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.hold, cfg.window = time.Second/10, time.Second/10
	for name, run := range map[string]func(context.Context, *report, cpuPair) error{
		restCase: cfg.rest, loopsCase: cfg.loops, collectCase: cfg.collect,
	} {
		var text strings.Builder
		if err := run(t.Context(), &report{w: &text}, cpus); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(text.String(), "NaN") || strings.Count(text.String(), "\n") < 5 {
			t.Errorf("%s: %s", name, text.String())
		}
		t.Log(text.String())
	}
}
