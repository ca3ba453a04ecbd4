//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdAwait waits for a program to take connections.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await URI")
	}
	network, address, _ := strings.Cut(args[0], "://")
	for end := time.Now().Add(patience); ; {
		c, err := net.Dial(network, address)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("nobody takes connections: %v", err)
		}
	}
}

// cmdCrowd is many clients of an echo at once.
func cmdCrowd(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	switch {
	case !neg && len(args) == 3 && args[0] == "join":
		count, err := strconv.Atoi(args[1])
		ts.Check(err)
		network, address, _ := strings.Cut(args[2], "://")
		w.crowd = make([]net.Conn, count)
		ts.Check(each(w.crowd, func(i int) (err error) {
			if w.crowd[i], err = net.DialTimeout(network, address, patience); err != nil {
				return err
			}
			return hears(w.crowd[i], i)
		}))
	case !neg && len(args) == 3 && args[0] == "lost":
		lost, err := tally(w.crowd, strings.Fields(ts.ReadFile(args[2])))
		ts.Check(err)
		if strconv.Itoa(lost) != args[1] {
			ts.Fatalf("%d of %d are lost, not %s", lost, len(w.crowd), args[1])
		}
	default:
		ts.Fatalf("usage: crowd join COUNT URI | crowd lost COUNT FILE")
	}
}

// tally checks that those who are named are closed, and all others served.
func tally(crowd []net.Conn, named []string) (lost int, err error) {
	gone := map[string]bool{}
	for _, name := range named {
		gone[name] = true
	}
	var mu sync.Mutex
	err = each(crowd, func(i int) error {
		c := crowd[i]
		err := hears(c, i)
		if !gone["tcp://"+c.LocalAddr().String()] {
			return err
		}
		if ne, ok := errors.AsType[net.Error](err); err == nil || ok && ne.Timeout() {
			return fmt.Errorf("%v is not closed", c.LocalAddr())
		}
		mu.Lock()
		defer mu.Unlock()
		lost++
		return nil
	})
	return lost, err
}

// hears sends something that is its own, and reads it back.
func hears(c net.Conn, i int) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	said := fmt.Sprintf("%d, %v", i, c.LocalAddr())
	if _, err := io.WriteString(c, said); err != nil {
		return err
	}
	heard := make([]byte, len(said))
	if _, err := io.ReadFull(c, heard); err != nil {
		return err
	}
	if string(heard) != said {
		return fmt.Errorf("%q came back for %q", heard, said)
	}
	return nil
}

// each calls f for all of the crowd, a hundred at a time.
func each(crowd []net.Conn, f func(i int) error) error {
	const hands = 100
	faults := make([]error, hands)
	var wg sync.WaitGroup
	for hand := range hands {
		wg.Go(func() {
			for i := hand; i < len(crowd) && faults[hand] == nil; i += hands {
				faults[hand] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}
