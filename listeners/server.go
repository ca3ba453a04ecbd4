package listeners

import (
	"errors"
	"time"

	"github.com/sockmgr/sockmgr/mux"
)

// A server is the Handler of a connection that it serves in place of the loop:
// an upstream gets it, a program has it, a goroutine uses it. The connection
// stays on the loop for what is true of all: limits, counters, its end. Loop
// only.
type server interface {
	Handler
	// take has what was read before it began, and what is read by conn.read.
	take(p []byte, eof bool)
	// ready is Ready.
	ready(ev mux.Events)
	// resume waits for what there is to wait for, after it could not.
	resume()
	// touch brings up to date when a byte last moved, where the loop does not see it.
	touch()
	// retire has it end by itself, as Drainer and Rester do: within grace if it is
	// at rest; 0: it is not. It reports whether it can.
	retire(grace time.Duration) bool
	// release gives the connection back to the loop, to end in peace; it reports
	// whether it does.
	release() bool
	// reset comes before a close with RST.
	reset()
	// letGo is asked before the close: if not, it closes the connection itself
	// as soon as it can.
	letGo(why error) bool
	// leaving reports whether it was asked.
	leaving() bool
	// closed comes with the close.
	closed(why error)
	// tell adds what it knows to a status, and held what it holds.
	tell(st *ConnStatus)
	held() (receive, send uint64)
}

// A plainServer is what most servers do of that: nothing.
type plainServer struct{}

func (plainServer) Handle(Peer, []byte) (int, error) { return 0, errors.ErrUnsupported } // it is never called
func (plainServer) take([]byte, bool)                {}
func (plainServer) resume()                          {}
func (plainServer) touch()                           {}
func (plainServer) retire(time.Duration) bool        { return false }
func (plainServer) release() bool                    { return false }
func (plainServer) reset()                           {}
func (plainServer) letGo(error) bool                 { return true }
func (plainServer) leaving() bool                    { return false }
func (plainServer) closed(error)                     {}
func (plainServer) held() (receive, send uint64)     { return 0, 0 }

// server is who serves the connection in place of the loop. Only of one that
// is served.
func (c *conn) server() server { return c.handler.(server) }
