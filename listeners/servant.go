package listeners

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A handler in a process: this very executable is run for each connection,
// under a name that nobody else gives it, drives the handler over its standard
// input, and ends. To the daemon it is a program like those of exec.

const (
	servantName = "[sockmgr: serves one connection]"
	servantEnv  = "SOCKMGR_SERVE"
)

// A servant is what it is told.
type servant struct {
	Handler  json.RawMessage `json:"handler"`
	Tunables Tunables        `json:"tunables"`
	Packets  bool            `json:"packets,omitempty"`
}

// servantFor tells a process to serve c.
func servantFor(h HandlerSpec, c *conn) (string, error) {
	handler, err := marshalHandler(h)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(servant{handler, c.l.tunables, c.is(packets)})
	return string(text), err
}

func init() {
	if len(os.Args) == 0 || os.Args[0] != servantName {
		return
	}
	if err := serveInput(os.Getenv(servantEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // it is the whole program
	}
	os.Exit(0) //nolint:forbidigo // as above
}

// serveInput serves the connection that is the standard input. Only what keeps
// it from beginning is an error.
func serveInput(text string) error {
	var s servant
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	kind, err := unmarshalHandler(s.Handler)
	if err != nil {
		return err
	}
	conn, err := net.FileConn(os.Stdin)
	if err != nil {
		return err
	}
	var tunables atomic.Pointer[Tunables]
	tunables.Store(&s.Tunables)
	d := &driver{kind: kind, packets: s.Packets, tunables: &tunables}
	if err := caught(func() error { return d.drive(conn) }); err == nil || errors.Is(err, io.EOF) { // in peace: see conn.linger
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, conn, lingerBytes)
	}
	return nil
}
