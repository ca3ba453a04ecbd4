package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The script behind `make bench-go` runs this tree beside another revision, keeps the
// figures, compares with the last run when no revision is named, and shows them as
// they are where benchstat cannot be had.
func TestBenchstat(t *testing.T) {
	for _, tool := range []string{"bash", "git", "go", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	out := t.TempDir()
	run := func(env ...string) (stdout, stderr string) {
		cmd := exec.CommandContext(t.Context(), "./benchstat")
		cmd.Env = append(os.Environ(), "OUT="+out, "COUNT=2", "BENCHTIME=1x", "BENCH=.", "PKGS=./mux")
		cmd.Env = append(cmd.Env, env...)
		var said [2]strings.Builder
		cmd.Stdout, cmd.Stderr = &said[0], &said[1]
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, said[1].String())
		}
		return said[0].String(), said[1].String()
	}
	measured := func(name string) int {
		text, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			return 0
		}
		return strings.Count(string(text), "\nBenchmark")
	}

	stdout, stderr := run("BENCHSTAT=false")
	if !strings.Contains(stderr, "BENCHSTAT=/path/to/benchstat") || !strings.Contains(stdout, "\nBenchmark") {
		t.Errorf("without benchstat: %s%s", stdout, stderr)
	}
	n := measured("after.txt")
	if n == 0 || n%2 != 0 || measured("before.txt") != 0 {
		t.Fatalf("%d and %d measured", n, measured("before.txt"))
	}
	if stdout, _ = run("BENCHSTAT=head -n 1 -v"); !strings.Contains(stdout, "beside the last run") || !strings.Contains(stdout, "before.txt") {
		t.Error(stdout)
	}
	if exec.Command("git", "rev-parse", "--verify", "HEAD").Run() != nil {
		return // unpacked without its history
	}
	if stdout, _ = run("BENCHSTAT=cat", "BASE=HEAD"); !strings.Contains(stdout, "beside HEAD (") || !strings.Contains(stdout, "in turn") {
		t.Error(stdout)
	}
	if got := []int{measured("before.txt"), measured("after.txt")}; got[0] == 0 || got[1] != n {
		t.Errorf("measured %d, want %d of this tree", got, n)
	}
}
