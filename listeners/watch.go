package listeners

import (
	"errors"

	"golang.org/x/sys/unix"
)

// A ConnWatcher is told of connections that open and close. Its methods are
// called on the loop and must not wait.
type ConnWatcher interface {
	ConnOpened(ConnStatus)
	// ConnClosed has what the kernel said last. Its state is ConnClosed.
	ConnClosed(ConnStatus)
}

// WatchConns tells w, and nobody before it, of connections from now on; nil
// tells nobody, and then watching costs nothing.
func (s *Set) WatchConns(w ConnWatcher) {
	s.watcher = w
	var far ConnWatcher
	if w != nil {
		far = farWatcher{s}
	}
	for _, worker := range s.workers {
		_ = worker.set.loop.Post(func() { worker.set.watcher = far }) // ended: nothing happens there
	}
}

// A farWatcher has who watches told of what happens on another loop, after what
// that loop has told before.
type farWatcher struct{ first *Set }

// ConnOpened is ConnWatcher.ConnOpened.
func (f farWatcher) ConnOpened(st ConnStatus) {
	f.tell(func(w ConnWatcher) { w.ConnOpened(st) })
}

// ConnClosed is ConnWatcher.ConnClosed.
func (f farWatcher) ConnClosed(st ConnStatus) {
	f.tell(func(w ConnWatcher) { w.ConnClosed(st) })
}

func (f farWatcher) tell(of func(ConnWatcher)) {
	_ = f.first.loop.Post(func() { // ended: nobody watches
		if w := f.first.watcher; w != nil {
			of(w)
		}
	})
}

// lastStatus is the status while the descriptor is still open, as it will be
// once it is not. It is not the full one: that takes five system calls more.
func (c *conn) lastStatus(why error) ConnStatus {
	st := c.status(DetailTCP)
	st.State, st.Err, st.Waits, st.Ended = ConnClosed, why, 0, c.l.set.loop.Time(c.l.set.loop.Clock())
	return st
}

// CloseWord is the reason for clients: of an errno that has no word of its own
// it names that too, as in error:ENOMEM.
func (st *ConnStatus) CloseWord() string {
	if errno, ok := errors.AsType[unix.Errno](st.Err); ok && st.Reason == ClosedByError {
		return st.Reason.String() + ":" + unix.ErrnoName(errno)
	}
	return st.Reason.String()
}
