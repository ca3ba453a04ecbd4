package mux

import (
	"testing"
	"time"
)

// A moment on the loop's clock is the same time of day whenever it is asked for,
// until someone sets the clock.
func TestTimeIsSteady(t *testing.T) {
	p, err := NewPoller("epoll")
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLoop(p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	turn := func(shift time.Duration) {
		l.clock = time.Since(l.epoch)
		l.now = time.Now().Add(shift)
	}
	turn(0)
	at := l.clock
	first := l.Time(at)
	if d := time.Until(first); d > time.Second || d < -time.Minute {
		t.Errorf("%v away from now", d)
	}
	for range 1000 {
		turn(0)
		if again := l.Time(at); !again.Equal(first) {
			t.Fatalf("%v, then %v", first, again)
		}
	}
	turn(time.Hour)
	if d := l.Time(at).Sub(first); d < time.Hour-time.Second || d > time.Hour+time.Second {
		t.Errorf("set forward by an hour: %v", d)
	}
}

// A loop that goes on where another one was has its clock.
func TestContinue(t *testing.T) {
	with := func(f func(Poller) (*Loop, error)) *Loop {
		p, err := NewPoller("epoll")
		if err != nil {
			t.Fatal(err)
		}
		l, err := f(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	first := with(NewLoop)
	first.epoch, first.wall, first.clock = first.epoch.Add(-time.Hour), first.wall.Add(-time.Hour), first.clock+time.Hour // it runs for an hour
	epoch, err := first.Epoch()
	if err != nil {
		t.Fatal(err)
	}
	next := with(func(p Poller) (*Loop, error) { return ContinueLoop(p, epoch) })
	if d := next.Clock() - time.Since(first.epoch); d > time.Millisecond || d < -time.Minute || next.Clock() < time.Hour {
		t.Errorf("its clock is %v, that of the other one %v", next.Clock(), time.Since(first.epoch))
	}
	if d := next.Time(time.Hour).Sub(first.Time(time.Hour)); d > 20*time.Millisecond || d < -20*time.Millisecond {
		t.Errorf("the same reading is %v apart", d)
	}
}
