//go:build linux && amd64

package main

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A wall is the time of day as one daemon has it. Go reads it by a function that
// the kernel maps into each process (vdso(7)), so that it can be another one in one
// process only by another function there.
type wall struct {
	mem    *os.File
	offset int64 // of the seconds that the function adds
}

// ownClock is clock_gettime of the kernel, with so many seconds added to
// CLOCK_REALTIME as stand behind it.
var ownClock = []byte{
	0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi: CLOCK_REALTIME is 0
	0x75, 10, // jne to the ret
	0x48, 0x8b, 0x0d, 6, 0, 0, 0, // mov rcx, [rip+6]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3,       // ret
	0x90, 0x90, // so that what follows is aligned
	0, 0, 0, 0, 0, 0, 0, 0,
}

// ownWall gives the daemon a time of day of its own.
func (v *victim) ownWall(t *testing.T) *wall {
	t.Helper()
	pid := v.cmd.Process.Pid
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		t.Skipf("the memory of the daemon cannot be written here: %v", err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	start, end := vdso(t, pid)
	image := make([]byte, end-start)
	if _, err := mem.ReadAt(image, start); err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.DynamicSymbols()
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "__vdso_clock_gettime" })
	if err != nil || i < 0 || symbols[i].Size < uint64(len(ownClock)) {
		t.Skipf("another sort of vdso: %v, %v", symbols, err)
	}
	at := start + int64(symbols[i].Value)
	for { // until no thread is in what is about to be another
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		in := isWithin(t, pid, start, end)
		if !in {
			_, err = mem.WriteAt(ownClock, at)
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Skipf("the kernel does not let it be changed: %v", err)
		}
		if !in {
			return &wall{mem, at + int64(len(ownClock)) - 8}
		}
	}
}

// set makes the time of day another by so much.
func (w *wall) set(t *testing.T, by time.Duration) {
	t.Helper()
	if _, err := w.mem.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(by/time.Second))), w.offset); err != nil {
		t.Fatal(err)
	}
}

func vdso(t *testing.T, pid int) (start, end int64) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasSuffix(lines.Text(), "[vdso]") {
			if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &start, &end); err != nil {
				t.Fatal(err)
			}
			return start, end
		}
	}
	t.Skip("the daemon has no vdso")
	return 0, 0
}

// isWithin reports whether a thread of a stopped process is there.
func isWithin(t *testing.T, pid int, start, end int64) bool {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		text, _ := os.ReadFile(dir + "/" + thread.Name() + "/syscall")
		fields := strings.Fields(string(text))
		if len(fields) == 0 || fields[0] == "running" { // not stopped yet
			return true
		}
		pc, err := strconv.ParseInt(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
		if err != nil || pc >= start && pc < end {
			return true
		}
	}
	return false
}

// The time of day jumps a day ahead and two back, and what is timed is not: what
// is idle or at rest stays open, a try is not reverted, a drain is not cut off, a
// pause does not end. A daemon that begins before what it has stored was made has
// it all, and changes it.
func TestWallClockJumps(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	v := startVictim(t, t.TempDir())
	w := v.ownWall(t)
	spec := handled(&pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, "tcp://127.0.0.1:0")
	spec.Options = map[string]*structpb.Value{}
	for _, o := range []string{"idle_timeout", "max_age", "write_timeout", "http.keepalive_timeout"} {
		spec.Options[o] = structpb.NewStringValue("1h")
	}
	address := serve(ctx, t, v.conn, "echo", spec)
	open := ask(t, address)
	answered(t, open)
	draining := serve(ctx, t, v.conn, "draining", handled(spec.GetHandler(), "tcp://127.0.0.1:0"))
	held := ask(t, draining)
	answered(t, held)
	listeners, tuning := pb.NewListenerServiceClient(v.conn), pb.NewTuningServiceClient(v.conn)
	serve(ctx, t, v.conn, "paused", handled(spec.GetHandler(), "tcp://127.0.0.1:0"))
	if _, err := listeners.PauseListener(ctx, &pb.PauseListenerRequest{Name: "paused", ResumeAfter: durationpb.New(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := tuning.SetOptions(ctx, &pb.SetOptionsRequest{
		Target: "echo", Options: map[string]*structpb.Value{"backlog": structpb.NewNumberValue(77)}, RevertAfter: durationpb.New(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := listeners.StopListener(ctx, &pb.StopListenerRequest{Name: "draining", DrainTimeout: durationpb.New(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for i, jump := range []time.Duration{24 * time.Hour, -24 * time.Hour, 0, 24 * time.Hour} {
		w.set(t, jump)
		name := fmt.Sprintf("jump%d", i)
		answered(t, ask(t, serve(ctx, t, v.conn, name, handled(spec.GetHandler(), "tcp://127.0.0.1:0"))))
		l, err := listeners.GetListener(ctx, &pb.GetListenerRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if off := time.Until(l.GetListener().GetCreateTime().AsTime()) - jump; off.Abs() > time.Minute {
			t.Fatalf("the time of day did not jump by %v, but is off by %v", jump, off)
		}
		for range 20 { // turns in which something might be due
			for _, c := range []net.Conn{open, held} {
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(c, "x"); err != nil {
					t.Fatalf("a jump of %v: %v", jump, err)
				}
				answered(t, c)
			}
		}
		got, err := tuning.GetOptions(ctx, &pb.GetOptionsRequest{Target: "echo", Names: []string{"backlog"}})
		if err != nil || got.GetOptions()["backlog"].GetNumberValue() != 77 {
			t.Errorf("a jump of %v: the try is %v, %v", jump, got, err)
		}
		if l, err := listeners.GetListener(ctx, &pb.GetListenerRequest{Name: "paused"}); err != nil || l.GetListener().GetStatus().GetState() != pb.ListenerStatus_STATE_PAUSED {
			t.Errorf("a jump of %v: %v, %v", jump, l.GetListener().GetStatus(), err)
		}
	}
	before := namesOf(ctx, t, v)
	v.kill(t)
	v = startVictim(t, v.dir) // a day before what is stored
	if names := namesOf(ctx, t, v); !slices.Equal(names, before) {
		t.Errorf("there is %v, was %v", names, before)
	}
	listeners = pb.NewListenerServiceClient(v.conn)
	for _, name := range before {
		want := pb.ListenerStatus_STATE_RUNNING
		switch name {
		case "draining":
			want = pb.ListenerStatus_STATE_STOPPED
		case "paused":
			want = pb.ListenerStatus_STATE_PAUSED
		}
		l, err := listeners.GetListener(ctx, &pb.GetListenerRequest{Name: name})
		if err != nil || l.GetListener().GetStatus().GetState() != want {
			t.Errorf("%s: %v, %v", name, l.GetListener().GetStatus(), err)
			continue
		}
		if _, err := listeners.DeleteListener(ctx, &pb.DeleteListenerRequest{Name: name, DrainTimeout: durationpb.New(0)}); err != nil {
			t.Error(err)
		}
	}
}
