//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A probe is a process whose connections to an echo listener say a byte each 20 ms
// and wait for it. It asks no more of the processors than that, and comes before
// others there, so that it measures the daemon and not how a crowd of clients
// waits for its own turn.
type probe struct {
	t     *testing.T
	ask   io.WriteCloser
	worst *bufio.Reader
	end   func() // waits until it has ended
}

// startProbe starts one with n connections.
func startProbe(t *testing.T, address string, n int) *probe {
	t.Helper()
	cmd := exec.Command("probe", address, strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	ask, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	worst, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &probe{t: t, ask: ask, worst: bufio.NewReader(worst)}
	p.end = sync.OnceFunc(func() {
		_ = ask.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("probe:", err)
		}
	})
	t.Cleanup(p.end)
	p.longest() // it has its connections
	return p
}

// longest is the longest round trip since it was last asked for, of those too that
// are not over.
func (p *probe) longest() time.Duration {
	p.t.Helper()
	_, err := io.WriteString(p.ask, "\n")
	var line string
	if err == nil {
		line, err = p.worst.ReadString('\n')
	}
	var n int64
	if err == nil {
		_, err = fmt.Sscan(line, &n)
	}
	if err != nil {
		p.t.Fatal("probe: ", err)
	}
	return time.Duration(n)
}

// longestIn is that in some time.
func (p *probe) longestIn(d time.Duration) time.Duration {
	p.t.Helper()
	p.longest()
	timer := time.NewTimer(d)
	<-timer.C
	return p.longest()
}

// probeMain is the process: probe ADDRESS CONNECTIONS.
func probeMain() {
	runtime.GOMAXPROCS(1)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -10) // root may: others measure a little more
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1) //nolint:forbidigo // it is the main of a program
	}
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fail(err)
	}
	var worst atomic.Int64
	epoch := time.Now()
	began := make([]atomic.Int64, n) // 0: nothing is under way
	note := func(d int64) {
		for was := worst.Load(); d > was; was = worst.Load() {
			if worst.CompareAndSwap(was, d) {
				return
			}
		}
	}
	for i := range n {
		c, err := net.Dial("tcp", os.Args[1])
		if err != nil {
			fail(err)
		}
		go func() {
			pace, b := time.NewTicker(20*time.Millisecond), []byte{byte(i)}
			for ; ; <-pace.C {
				at := int64(time.Since(epoch))
				began[i].Store(at)
				_, err := c.Write(b)
				if err == nil {
					_, err = io.ReadFull(c, b)
				}
				if err == nil && b[0] != byte(i) {
					err = errors.New("another byte came back")
				}
				if err != nil {
					fail(err)
				}
				note(int64(time.Since(epoch)) - at)
				began[i].Store(0)
			}
		}()
	}
	in := bufio.NewReader(os.Stdin)
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		now := int64(time.Since(epoch))
		for i := range began {
			if at := began[i].Load(); at > 0 {
				note(now - at)
			}
		}
		_, _ = fmt.Fprintln(os.Stdout, worst.Swap(0)) // nobody asks any more
	}
}
