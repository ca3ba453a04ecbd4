//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A crowd is clients that are at work while the daemon is upgraded. Whatever goes
// wrong is an error of the test: no connection may end, no byte be lost or come
// twice.
type crowd struct {
	t      *testing.T
	ctx    context.Context
	stop   context.CancelFunc
	all    sync.WaitGroup
	pings  atomic.Int64
	bytes  atomic.Int64
	failed atomic.Int64
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{t: t}
	c.ctx, c.stop = context.WithCancel(t.Context())
	t.Cleanup(c.end)
	return c
}

// end waits for all to finish what they are at.
func (c *crowd) end() {
	c.stop()
	c.all.Wait()
}

func (c *crowd) fail(what string, err error) {
	if c.failed.Add(1) <= 10 {
		c.t.Errorf("%s: %v", what, err)
	}
}

func (c *crowd) dial(network, address string) net.Conn {
	c.t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// ping has n connections echo a number that grows, each every so often.
func (c *crowd) ping(network, address string, n int, every time.Duration) {
	c.t.Helper()
	for range n {
		conn := c.dial(network, address)
		c.all.Go(func() {
			defer conn.Close()
			pace := time.NewTimer(rand.N(every))
			defer pace.Stop()
			var out, in [8]byte
			for next := uint64(1); ; next++ {
				select {
				case <-pace.C:
				case <-c.ctx.Done():
					return
				}
				binary.BigEndian.PutUint64(out[:], next)
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				_, err := conn.Write(out[:])
				if err == nil {
					_, err = io.ReadFull(conn, in[:])
				}
				if err != nil || in != out {
					c.fail(network+" echo", errors.Join(err, errors.New("or another number came back")))
					return
				}
				c.pings.Add(1)
				pace.Reset(every)
			}
		})
	}
}

// stream sends bytes through n connections, rate bytes a second on each, 0: as fast
// as they go; and wants them back as they were.
func (c *crowd) stream(address string, n, rate int) {
	c.t.Helper()
	for i := range n {
		conn := c.dial("tcp", address)
		c.all.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Hour))
			seed := [32]byte{byte(i), byte(i >> 8)}
			sent := make(chan int64, 1)
			go func() {
				random, buf, total := rand.NewChaCha8(seed), make([]byte, 32<<10), int64(0)
				pace := time.NewTicker(max(1, time.Second*32<<10/time.Duration(max(1, rate))))
				defer pace.Stop()
				for c.ctx.Err() == nil {
					if rate > 0 {
						<-pace.C
					}
					_, _ = random.Read(buf)
					n, err := conn.Write(buf)
					if total += int64(n); err != nil {
						c.fail("stream, writing", err)
						break
					}
				}
				_ = conn.(*net.TCPConn).CloseWrite()
				sent <- total
			}()
			random, got, want, total := rand.NewChaCha8(seed), make([]byte, 32<<10), make([]byte, 32<<10), int64(0)
			for {
				n, err := io.ReadFull(conn, got)
				_, _ = random.Read(want)
				if total += int64(n); !bytes.Equal(got[:n], want[:n]) {
					c.fail("stream", errors.New("other bytes came back"))
				}
				c.bytes.Add(int64(n))
				if err != nil {
					if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
						err = nil
					}
					if all := <-sent; err != nil || all != total {
						c.fail("stream", errors.Join(err, errors.New("not as many bytes came back")))
					}
					return
				}
			}
		})
	}
}

// connect makes a connection after the other, each of which says and hears a word.
func (c *crowd) connect(address string, every time.Duration) {
	c.all.Go(func() {
		pace := time.NewTicker(every)
		defer pace.Stop()
		for c.ctx.Err() == nil {
			<-pace.C
			conn, err := net.DialTimeout("tcp", address, 10*time.Second)
			if err != nil {
				c.fail("connect", err)
				continue
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = conn.Write([]byte("word"))
			if err == nil {
				_, err = io.ReadFull(conn, make([]byte, 4))
			}
			if err != nil {
				c.fail("new connection", err)
			}
			_ = conn.Close()
		}
	})
}

// get asks again and again over one connection.
func (c *crowd) get(address string) {
	c.t.Helper()
	conn := c.dial("tcp", address)
	c.all.Go(func() {
		defer conn.Close()
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		buf := make([]byte, 4096)
		for c.ctx.Err() == nil {
			<-pace.C
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			n := 0
			for err == nil && !bytes.HasSuffix(buf[:n], []byte("\r\n\r\nHello, World")) {
				var k int
				k, err = conn.Read(buf[n:])
				n += k
			}
			if err != nil || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200 OK\r\n")) {
				c.fail("http", errors.Join(err, errors.New(string(buf[:n]))))
				return
			}
		}
	})
}

// percentile is the least that so many in a hundred do not exceed.
func percentile(all []time.Duration, p int) time.Duration {
	slices.Sort(all)
	return all[max(0, (len(all)*p+99)/100-1)]
}
