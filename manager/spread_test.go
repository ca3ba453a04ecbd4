package manager_test

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// Each number is given out once, by one goroutine or several, and a panic is the
// caller's.
func TestSpread(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for _, n := range []int{0, 1, 31, 32, 33, 511, 512, 5000} {
		times := make([]atomic.Int32, n)
		manager.Spread(n, func(some iter.Seq[int]) {
			for i := range some {
				times[i].Add(1)
			}
		})
		for i := range times {
			if got := times[i].Load(); got != 1 {
				t.Fatalf("%d of %d: %d times", i, n, got)
			}
		}
	}
	defer func() {
		if r := recover(); !strings.Contains(fmt.Sprint(r), "of one") {
			t.Errorf("panicked with %v", r)
		}
	}()
	manager.Spread(2000, func(some iter.Seq[int]) {
		for i := range some {
			if i == 1999 {
				panic("of one")
			}
		}
	})
	t.Error("nobody panicked")
}

// When a large set is bound by several goroutines, who comes first in the request
// has an address that two wish for, as if it was bound by one.
func TestApplyOfTwoAtOneAddress(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	m := newManager(t, "")
	defer shutdown(t, m)
	taken, err := net.Listen("tcp", "127.5.9.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	const count = 1200
	var wishes []manager.Wish
	want := make([]manager.Action, count)
	for i := range count {
		uri := fmt.Sprintf("tcp://127.5.%d.%d:%d", i/200, 1+i%200, port)
		if i >= count/2 && i%60 == 0 { // one from before once more
			uri = fmt.Sprintf("tcp://127.5.%d.%d:%d", (i-count/2)/200, 1+(i-count/2)%200, port)
		}
		wishes = append(wishes, wish(fmt.Sprintf("l%d", i), 5, uri))
		if want[i] = manager.Created; i >= count/2 && i%60 == 0 {
			want[i] = manager.NotApplied
		}
	}
	_, _, err = m.Apply(t.Context(), wishes, manager.ApplyOptions{Atomic: true})
	part, ok := errors.AsType[*manager.PartError](err)
	if !ok || part.Listener != fmt.Sprintf("l%d", count/2) || !errors.Is(err, listeners.AddressInUse) {
		t.Fatal(err)
	}
	if n := m.Len(); n != 0 {
		t.Errorf("%d are there", n)
	}
	all, _, err := m.Apply(t.Context(), wishes, manager.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := actions(all); !slices.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%d: %v, want %v: %v", i, got[i], want[i], all[i].Err)
			}
		}
	}
	for i, a := range all {
		if want[i] == manager.NotApplied && !errors.Is(a.Err, listeners.AddressInUse) {
			t.Fatalf("%s: %v", a.Name, a.Err)
		}
	}
}
