package main

import (
	"strings"
	"testing"
)

// Echo beside connections that do nothing, and beside changes, is measured.
func TestBeside(t *testing.T) {
	cpus, err := pickCPUs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.sizes = []int{100}
	var text strings.Builder
	if err := cfg.crowd(t.Context(), &report{w: &text}, cpus); err != nil {
		t.Fatal(err)
	}
	if err := cfg.contention(t.Context(), &report{w: &text}, cpus); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
}
