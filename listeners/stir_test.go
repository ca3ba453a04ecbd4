package listeners_test

import (
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// A listener is among those that stirred once, when something came, was counted or
// was changed, and not when nothing happened.
func TestStirred(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		tcp := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		udp := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
		idle := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		stirred := func() map[*listeners.Listener]int {
			all := map[*listeners.Listener]int{}
			h.do(func() {
				for some := h.set.Stirred(2); len(some) > 0; some = h.set.Stirred(2) {
					for _, l := range some {
						all[l]++
					}
				}
			})
			return all
		}
		// expect waits: the loop may count what it sent after the client has it.
		expect := func(what string, l *listeners.Listener) {
			t.Helper()
			all := stirred()
			eventually(t, func() bool {
				if all[l] == 0 {
					all = stirred()
				}
				return all[l] == 1 && len(all) == 1
			}, func() string { return what })
		}
		if all := stirred(); len(all) != 3 || all[tcp] != 1 || all[udp] != 1 || all[idle] != 1 {
			t.Errorf("%v were opened", all)
		}
		if all := stirred(); len(all) != 0 {
			t.Errorf("%v stirred, and nothing has happened", all)
		}
		c, d := dial(t, h.addr(tcp, 0)), dial(t, h.addr(udp, 0))
		expect("a connection came", tcp)
		ask(t, c, []byte("x"))
		expect("a byte came", tcp)
		ask(t, d, []byte("x"))
		expect("a datagram came", udp)
		h.do(func() {
			if idle.Unseen() {
				t.Error("it is on the loop")
			}
			if err := idle.Pause(listeners.Hold); err != nil {
				t.Error(err)
			}
			if !idle.Unseen() {
				t.Error("it is paused: nobody tells the loop of what waits")
			}
		})
		expect("it was paused", idle)
	})
}
