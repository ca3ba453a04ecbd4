package listeners_test

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// Nor does serving a request allocate anything when a second loop serves half of
// the connections. Datagrams are served by the first loop alone.
func TestAllocsOfTwoLoops(t *testing.T) {
	var all []load
	for _, tt := range loads(shortDir(t)) {
		if !strings.HasPrefix(tt.uri, "udp") && !strings.HasPrefix(tt.uri, "unixgram") {
			all = append(all, tt)
		}
	}
	ping := bytes.Repeat([]byte("x"), 64)
	all = append(all, load{"forward tcp", "tcp4://127.0.0.1:0", nil, ping, len(ping)})
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			if tt.handler == nil {
				up := newHostOf(t, 1)
				tt.handler = forwardTo(up.addr(up.open(spec(t, listeners.Echo{}, "", tt.uri)), 0))
			}
			h := newHostOf(t, 2)
			l := h.open(spec(t, tt.handler, "idle_timeout=1h", tt.uri))
			buf := make([]byte, 64<<10)
			fds := h.onBothLoops(l, func(fd int) { exchange(t, fd, tt.request, buf, tt.answer) })
			const requests = 1000
			rounds := func(n int) {
				for i := range n {
					exchange(t, fds[i%len(fds)], tt.request, buf, tt.answer)
				}
			}
			rounds(400)
			if n := mallocs(func() { rounds(requests) }); n > requests/50 { // the runtime's own
				t.Errorf("%d allocations for %d requests", n, requests)
			}
		})
	}
}

// onBothLoops connects clients, which use says are served, until each loop has one.
func (h *host) onBothLoops(l *listeners.Listener, use func(fd int)) (fds []int) {
	h.t.Helper()
	to := h.status(l).Bound[0]
	for range 32 {
		fd := rawClient(h.t, to, "")
		h.t.Cleanup(func() { unix.Close(fd) })
		use(fd)
		fds = append(fds, fd)
		serve := map[int]bool{}
		for _, c := range h.conns() {
			serve[c.Loop] = true
		}
		if len(serve) == 2 {
			return fds
		}
	}
	h.t.Fatalf("%d connections, and one loop serves all", len(fds))
	return nil
}
