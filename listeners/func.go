package listeners

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
)

// Func is a handler of one's own: blocking code that was made known by
// HandleFunc, for a goroutine for each connection.
type Func struct {
	Name string `json:"name"`
}

var funcs = map[string]func(net.Conn){}

// HandleFunc makes serve known as the handler func with that name, as
// http.HandleFunc does. Call it before any listener is made: from init, or at
// the beginning of main. It panics if the name is taken or empty.
//
// serve has a goroutine for each connection, and may wait in Read and Write as
// long as it likes. The connection ends when serve returns: what was written is
// sent first. It has a CloseWrite method, as *net.TCPConn has. Everything that
// the daemon knows of connections is there for it too: limits, rates,
// idle_timeout, the PROXY protocol, TLS, inspection. When the connection is
// closed by others, Read and Write fail, and serve shall return: the daemon
// waits for that when it ends. A panic ends the one connection; ten in a minute give the
// listener a rest of 30 s.
func HandleFunc(name string, serve func(net.Conn)) {
	if _, taken := funcs[name]; taken || name == "" {
		panic("listeners: HandleFunc: the name " + name + " is taken, or empty")
	}
	funcs[name] = serve
}

// Kind is HandlerSpec.Kind.
func (*Func) Kind() string { return "func" }

// Datagram is HandlerSpec.Datagram.
func (*Func) Datagram() bool { return false }

// Validate is HandlerSpec.Validate.
func (f *Func) Validate() error {
	if _, ok := funcs[f.Name]; ok {
		return nil
	}
	known := "it has none"
	if len(funcs) > 0 {
		known = "it has " + strings.Join(slices.Sorted(maps.Keys(funcs)), ", ")
	}
	return &Violation{Field: "spec.handler.func.name", Message: fmt.Sprintf("%q is not built into this daemon: %s", f.Name, known)}
}

// New is HandlerSpec.New.
func (f *Func) New() Handler { return &function{serveConn: funcs[f.Name]} }

// A function is the Handler of a Func.
type function struct{ serveConn func(net.Conn) }

// Handle is never called: a thread serves.
func (*function) Handle(Peer, []byte) (int, error) { return 0, errors.ErrUnsupported }

//nolint:unparam // as a blocker does
func (f *function) serve(conn net.Conn, _ *thread) error {
	f.serveConn(conn)
	return nil
}
