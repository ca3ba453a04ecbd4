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
