//go:build linux

package main

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func cmdDial(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] dial NAME URI")
	}
	network, address, _ := strings.Cut(args[1], "://")
	d := net.Dialer{Timeout: patience}
	if network == "unixgram" { // who has no name gets no answer
		d.LocalAddr = &net.UnixAddr{Net: network, Name: "@sm-" + rand.Text()}
	}
	c, err := d.Dial(network, address)
	if neg {
		if err == nil {
			c.Close()
			ts.Fatalf("somebody answers at %s", args[1])
		}
		return
	}
	ts.Check(err)
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	w := worldOf(ts)
	if old := w.conns[args[0]]; old != nil {
		old.Close()
	}
	w.conns[args[0]] = c
	ts.Setenv(args[0], c.LocalAddr().String())
}

// cmdHear binds a name for datagrams, to be read with expect.
func cmdHear(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hear NAME PATH")
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: args[1]})
	ts.Check(err)
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	worldOf(ts).conns[args[0]] = c
}

func connOf(ts *testscript.TestScript, wrong bool, args []string, usage string) net.Conn {
	if wrong || len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: %s", usage)
	}
	c := worldOf(ts).conns[args[0]]
	if c == nil {
		ts.Fatalf("no connection is called %s", args[0])
	}
	return c
}

func textOf(ts *testscript.TestScript, arg string) string {
	text, err := strconv.Unquote(`"` + strings.ReplaceAll(arg, `"`, `\"`) + `"`)
	ts.Check(err)
	return text
}

func cmdSend(ts *testscript.TestScript, neg bool, args []string) {
	c := connOf(ts, neg || len(args) != 2, args, "send NAME TEXT")
	_, err := c.Write([]byte(textOf(ts, args[1])))
	ts.Check(err)
}

func cmdExpect(ts *testscript.TestScript, neg bool, args []string) {
	c := connOf(ts, neg || len(args) != 2, args, "expect NAME TEXT")
	want := textOf(ts, args[1])
	got := make([]byte, 64<<10)
	var n int
	var err error
	switch c.LocalAddr().Network() {
	case "tcp", "unix":
		n, err = io.ReadFull(c, got[:len(want)])
	default: // one message
		n, err = c.Read(got)
		for err == nil && strings.HasPrefix(string(got[:n]), "FDSTORE") { // to a service manager: see TestKillKeepsTheControlAddresses
			n, err = c.Read(got)
		}
	}
	if string(got[:n]) != want || err != nil {
		ts.Fatalf("%s: got %q, %v; want %q", args[0], got[:n], err, want)
	}
}

func cmdClose(ts *testscript.TestScript, neg bool, args []string) {
	c := connOf(ts, neg, args, "close NAME [write]")
	if len(args) == 2 {
		half, ok := c.(interface{ CloseWrite() error })
		if !ok || args[1] != "write" {
			ts.Fatalf("usage: close NAME [write]")
		}
		ts.Check(half.CloseWrite())
		return
	}
	delete(worldOf(ts).conns, args[0])
	ts.Check(c.Close())
}

func cmdClosed(ts *testscript.TestScript, neg bool, args []string) {
	c := connOf(ts, neg, args, "closed NAME [reset]")
	n, err := c.Read(make([]byte, 1))
	reset := errors.Is(err, syscall.ECONNRESET)
	if wantReset := len(args) == 2; n > 0 || reset != wantReset || !reset && !errors.Is(err, io.EOF) {
		ts.Fatalf("%s: read %d bytes, %v", args[0], n, err)
	}
	delete(worldOf(ts).conns, args[0])
	ts.Check(c.Close())
}
