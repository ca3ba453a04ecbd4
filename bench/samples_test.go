package main

import (
	"maps"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What perf prints is read: samples in the kernel go to their system call, those of C
// to its own code, those of Go by the file that the address is in.
func TestParseSamples(t *testing.T) {
	kernel := func(names ...string) string {
		var b strings.Builder
		for _, name := range names {
			b.WriteString("\tffffffff9c0a1b2c " + name + " ([kernel.kallsyms])\n")
		}
		return b.String() + "\n"
	}
	c := parseSamples(kernel("tcp_ack", "ksys_write", "do_syscall_64")+
		kernel("entry_SYSCALL_64")+
		"\t    7fff12345678 __vdso_clock_gettime ([vdso])\n\n"+
		"\t    7f0012345678 write (/usr/lib/x86_64-linux-gnu/libc.so.6)\n\n"+
		"\t          4011f0 [unknown] (/tmp/a server)\n\t          4011f1 main (/tmp/a server)\n", nil)
	want := map[string]int{partKernel: 1, partEntry: 2, partClock: 1, partHandler: 1}
	if !maps.Equal(c.parts, want) || c.n != 5 || !reflect.DeepEqual(c.calls, map[string]int{"write": 1}) {
		t.Errorf("%+v", c)
	}
	self, err := readCode("/proc/self/exe")
	if err != nil || self == nil {
		t.Fatal(self, err)
	}
	for name, want := range map[string]string{"runtime.mallocgc": partRuntime, "github.com/sockmgr/sockmgr/bench.parseFrame": partHandler} {
		f := self.table.LookupFunc(name)
		if f == nil {
			continue // built as a library that is moved: the race detector's
		}
		if part, _ := self.classify([]frame{{at: f.Entry - self.moved, name: name}}); part != want {
			t.Errorf("%s: %s", name, part)
		}
	}
}

// Every file is somebody's.
func TestPartOf(t *testing.T) {
	for file, want := range map[string]string{
		"internal/runtime/syscall/linux/asm_linux_amd64.s": partEntry,
		"golang.org/x/sys@v0.49.0/unix/syscall_linux.go":   partEntry,
		"runtime/proc.go":                                  partRuntime,
		"runtime/memmove_amd64.s":                          partHandler,
		"runtime/time_linux_amd64.s":                       partClock,
		"github.com/sockmgr/sockmgr/mux/loop.go":           partLoop,
		"github.com/sockmgr/sockmgr/mux/timer.go":          partCounters,
		"github.com/sockmgr/sockmgr/listeners/counters.go": partCounters,
		"/home/me/sockmgr/listeners/http_parse.go":         partHandler,
	} {
		if got := partOf(file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

// The daemon is profiled beside a Go net server.
func TestProfile(t *testing.T) {
	if _, err := exec.LookPath("perf"); err != nil {
		t.Skip(err)
	}
	if err := exec.CommandContext(t.Context(), "perf", "record", "-q", "-o", t.TempDir()+"/perf.data", "-p", strconv.Itoa(os.Getpid()), "--", "true").Run(); err != nil {
		t.Skipf("perf may not look at processes here: %v", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpus, err := pickCPUs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.workloads, cfg.window = []string{"udp-1"}, time.Second/5
	var text strings.Builder
	if err := cfg.profile(t.Context(), &report{w: &text}, cpus); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "| udp-1 |") || !strings.Contains(text.String(), partKernel) {
		t.Error(text.String())
	}
}

// Calls that do the same stand beside each other, and none is left out.
func TestCallGroups(t *testing.T) {
	got := callGroups([2]spending{{calls: map[string]float64{"sendto": 1, "nanosleep": 1}}, {calls: map[string]float64{"write": 1, "splice": 1}}})
	want := []callGroup{
		{"send", []string{"write", "sendto"}}, {"receive", []string{}}, {"wait", []string{}}, {"other", []string{"nanosleep"}}, {"other", []string{"splice"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
