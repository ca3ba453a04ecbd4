package main

import (
	"strings"
	"testing"
	"time"
)

// Every way to call is counted.
func TestOpenClose(t *testing.T) {
	cpus, err := pickCPUs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.stateIn, cfg.window = t.TempDir(), time.Second/2
	var text strings.Builder
	if err := cfg.openClose(t.Context(), &report{w: &text}, cpus); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(text.String(), "\n"); lines != 8 || strings.Contains(text.String(), "NaN") {
		t.Error(text.String())
	}
}
