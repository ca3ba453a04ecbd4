package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

// netServerCommand is the hidden command that runs the other contender.
const netServerCommand = "serve-net"

// serveNet serves echo, HTTP and UDP echo as a Go program commonly does: a
// goroutine for each connection with a buffer of its own, net/http, and a
// goroutine that reads and answers datagrams. Given a backend's two addresses,
// it forwards too: see netforward.go. It prints its addresses and serves until
// stdin ends.
func serveNet(args []string, stdin io.Reader, out io.Writer) error {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	addrs := []any{echo.Addr(), web.Addr(), udp.LocalAddr()}
	failed := make(chan error, 6)
	if len(args) == 2 {
		more, err := forwardNet(args[0], args[1], failed)
		if err != nil {
			return err
		}
		addrs = append(addrs, more...)
	}
	go func() { failed <- acceptEcho(echo) }()
	go func() { failed <- echoDatagrams(udp) }()
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, httpBody) // a client that went away is its own business
		}),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(os.Stderr, "go net: ", 0),
	}
	go func() { failed <- server.Serve(web) }()
	go func() {
		_, err := io.Copy(io.Discard, stdin)
		failed <- err
	}()
	if _, err := fmt.Fprintln(out, addrs...); err != nil {
		return err
	}
	return <-failed
}

func acceptEcho(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go echoAll(c)
	}
}

func echoAll(c net.Conn) {
	defer func() { _ = c.Close() }()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err == nil {
			_, err = c.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func echoDatagrams(c *net.UDPConn) error {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err == nil {
			_, err = c.WriteToUDPAddrPort(buf[:n], from)
		}
		// A client that closed its port makes ECONNREFUSED here.
		if errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}
