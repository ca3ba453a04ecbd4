package listeners

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/sockmgr/sockmgr/internal/deadline"
	"github.com/sockmgr/sockmgr/mux"
)

// A view is a connection as blocking code sees one: a net.Conn, for any
// goroutine but the loop's. The descriptor stays the loop's, which does all
// system calls: limits, rates, counters and inspection are as for every other
// connection, and a view costs no descriptor of its own.
//
// Read takes from what the loop has read ahead, up to about twice
// read_buffer_bytes. Write returns once the kernel took all, as on a socket
// that blocks.
type view struct {
	loop          *mux.Loop
	t             *thread // the loop's
	local, remote net.Addr
	deadline.Pair
	readers sync.Mutex // one call at a time
	writers sync.Mutex
	p       []byte        // of a Write
	begin   func()        // t.write, made once
	wrote   chan written  // the answer to it
	arrived chan struct{} // there may be something for Read
	over    chan struct{} // it is closed

	mu      sync.Mutex // held for a moment at a time: the loop wants it too
	in      []byte     // read ahead
	kept    int        // what its reader keeps of what it has read
	full    bool       // and the loop reads no more until it is taken
	eof     bool       // the peer has finished
	told    bool       // to come to rest: Read says so once, by a timeout
	shaking bool       // and not before the TLS handshake is over, which that would end
	grace   time.Duration
	drains  bool  // who reads can do that
	closed  error // why nothing more can be done
}

// written is what came of a Write.
type written struct {
	n   int
	err error
}

// Read is net.Conn.Read.
func (v *view) Read(p []byte) (int, error) {
	v.readers.Lock()
	defer v.readers.Unlock()
	for {
		n, drained, err := v.take(p)
		if drained {
			_ = v.loop.Post(v.t.drained) // ended: over says so
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		select {
		case <-v.arrived:
		case <-v.over:
		case <-v.ReadBy.Passed():
		}
	}
}

// take takes what is there. drained tells that the loop waits for it.
func (v *view) take(p []byte) (n int, drained bool, err error) {
	late := deadline.IsClosed(v.ReadBy.Passed())
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case late:
		return 0, false, os.ErrDeadlineExceeded
	case v.closed == net.ErrClosed: //nolint:errorlint // Close says this and nothing else
		return 0, false, v.closed
	case v.told && !v.shaking:
		v.told = false
		return 0, false, os.ErrDeadlineExceeded
	case len(v.in) > 0:
		n = copy(p, v.in)
		if v.in = v.in[n:]; len(v.in) == 0 {
			v.in = nil
			drained, v.full = v.full, false
		}
		return n, drained, nil
	case v.eof:
		return 0, false, io.EOF
	case v.closed != nil:
		return 0, false, v.closed
	}
	return 0, false, nil
}

// Write is net.Conn.Write.
func (v *view) Write(p []byte) (int, error) {
	v.writers.Lock()
	defer v.writers.Unlock()
	late := v.WriteBy.Passed()
	if deadline.IsClosed(late) {
		return 0, os.ErrDeadlineExceeded
	}
	if err := v.why(); err != nil || len(p) == 0 {
		return 0, err
	}
	v.p = p
	if v.loop.Post(v.begin) != nil {
		return 0, net.ErrClosed
	}
	for {
		select {
		case w := <-v.wrote:
			return w.n, w.err
		case <-v.over:
			select {
			case w := <-v.wrote: // the loop was in time
				return w.n, w.err
			default: // it never looks at p
				return 0, v.why()
			}
		case <-late:
			late = nil
			_ = v.loop.Post(v.t.withdraw) // which answers
		}
	}
}

// why is why nothing more can be done; nil: it can.
func (v *view) why() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.closed
}

// Close ends the connection once all is sent. A client that sends still is
// listened to for a moment, lest it miss the end of what it was sent.
func (v *view) Close() error {
	if !v.end(net.ErrClosed) {
		return nil
	}
	_ = v.loop.Post(v.t.finish) // ended: all is closed
	return nil
}

// CloseWrite tells the peer that no more will be sent.
func (v *view) CloseWrite() error {
	if err := v.why(); err != nil {
		return err
	}
	if v.loop.Post(func() {
		if !v.t.gone {
			v.t.c.closeWrite()
		}
	}) != nil {
		return net.ErrClosed
	}
	return nil
}

// end says that nothing more can be done; it reports whether that is news.
func (v *view) end(why error) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed != nil {
		return false
	}
	v.closed = why
	v.wake()
	return true
}

// wake has a Read look again.
func (v *view) wake() {
	select {
	case v.arrived <- struct{}{}:
	default: // it will
	}
}

// LocalAddr is net.Conn.LocalAddr.
func (v *view) LocalAddr() net.Addr { return v.local }

// RemoteAddr is who the connection is from: who a PROXY header says, if there
// was one.
func (v *view) RemoteAddr() net.Addr { return v.remote }
