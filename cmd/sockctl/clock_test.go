//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A daemon that did not run for a while, as on a machine that was suspended:
// whose bytes came meanwhile is answered, though its time is over; others are
// ended, and nobody calls the loop stuck.
func TestStoppedForAWhile(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	v := startVictim(t, t.TempDir())
	addresses := map[string]string{}
	for name, h := range map[string]*pb.Handler{
		"echo": {Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}},
		"http": {Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: []byte("hello")}}},
	} {
		spec := handled(h, "tcp://127.0.0.1:0")
		spec.Options = map[string]*structpb.Value{
			"idle_timeout":           structpb.NewStringValue("1200ms"),
			"http.keepalive_timeout": structpb.NewStringValue("1s"),
			"http.request_timeout":   structpb.NewStringValue("1s"),
		}
		addresses[name] = serve(ctx, t, v.conn, name, spec)
	}
	ask := map[string]string{"echo": "hello", "http": "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}
	type client struct {
		net.Conn
		name string
	}
	var speak, silent []client
	for i := range 700 { // more than one turn serves
		name := []string{"echo", "http"}[i%2]
		c, err := net.Dial("tcp", addresses[name])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if i < 40 {
			silent = append(silent, client{c, name})
		} else {
			speak = append(speak, client{c, name})
		}
	}
	exchange := func(c client) error {
		_, err := io.WriteString(c, ask[c.name])
		return err
	}
	hear := func(c client) error {
		got, buf := "", make([]byte, 1000)
		for !strings.HasSuffix(got, "hello") {
			n, err := c.Read(buf)
			if got += string(buf[:n]); err != nil {
				return fmt.Errorf("%q: %w", got, err)
			}
		}
		return nil
	}
	for _, c := range append(speak, silent...) {
		if err := exchange(c); err != nil {
			t.Fatal(err)
		}
		if err := hear(c); err != nil {
			t.Fatal(err)
		}
	}
	process := v.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer process.Signal(syscall.SIGCONT)
	for _, c := range speak {
		if err := exchange(c); err != nil {
			t.Fatal(err)
		}
	}
	time.AfterFunc(2500*time.Millisecond, func() { _ = process.Signal(syscall.SIGCONT) })
	lost := 0
	for _, c := range speak {
		if err := hear(c); err != nil {
			if lost++; lost < 5 {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	for _, c := range silent {
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	events, err := pb.NewEventServiceClient(v.conn).ListEvents(ctx, &pb.ListEventsRequest{Filter: `type = "loop.stalled"`})
	if err != nil || len(events.GetEvents()) > 0 {
		t.Errorf("%v, %v", events, err)
	}
	t.Logf("stopped for 2.5 s, which is longer than all times: %d of %d that had asked meanwhile were not answered", lost, len(speak))
}
