package service

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// A client that begins calls as fast as they are read, and gives each up, is read
// at the rate that there is for its process, whatever it does it by, and is told
// of once. What it may, it may at once.
func TestPace(t *testing.T) {
	const (
		head = 28 // bytes of a call and its end
		secs = 10
	)
	for name, c := range map[string]struct {
		method string
		end    func(*pace)
		most   int // calls in that time
	}{
		"calls":   {pb.EventService_WatchEvents_FullMethodName, func(*pace) {}, callRate * (secs + 1)},
		"sockets": {pb.SocketService_Send_FullMethodName, func(*pace) {}, socketRate * (secs + 1)},
		"resets":  {pb.SocketService_Send_FullMethodName, (*pace).gaveUp, resetRate*secs + resetBurst},
		"wasted":  {pb.EventService_WatchEvents_FullMethodName, (*pace).wasted, wasteRate * (secs + 1)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []string
				p := newPace(newProcess())
				p.tell = func(why string) { told = append(told, why) }
				all := 0
				for began := time.Now(); time.Since(began) < secs*time.Second; {
					for range p.next(32<<10) / head {
						all++
						p.began(c.method)
						c.end(p)
					}
				}
				if all < c.most*8/10 || all > c.most+2*smallRead/head {
					t.Errorf("%d calls, not %d", all, c.most)
				}
				if len(told) != 1 || !strings.Contains(told[0], " in a second ") {
					t.Error(told)
				}
				<-time.NewTimer(2 * time.Second).C // when it has stopped it is as new
				p.next(1)
				if n := p.next(32 << 10); n != 32<<10 {
					t.Error(n)
				}
				p.began(c.method)
				began := time.Now()
				if n := p.next(32 << 10); n != 32<<10 || time.Since(began) != 0 {
					t.Errorf("%d bytes after %v", n, time.Since(began))
				}
			})
		})
	}
}

// Many calls on sockets at once, and fewer of others, wait for nothing.
func TestPaceOfTheHonest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(newProcess())
		began := time.Now()
		for range 4 * maxConcurrentStreams {
			p.next(32 << 10)
			p.began(pb.SocketService_Recv_FullMethodName)
		}
		for range 4 * maxConcurrentStreams / 10 {
			p.next(32 << 10)
			p.began(pb.ListenerService_GetListener_FullMethodName)
			p.gaveUp()
		}
		for range wasteRate {
			p.wasted()
		}
		p.next(1)
		if took := time.Since(began); took != 0 {
			t.Error(took)
		}
	})
}

// What one connection has spent is spent for the others of its process, and for
// those that it opens when it has closed it; not for other processes.
func TestPaceOfProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConns()
		hold := func(pid int32) (net.Conn, *pace) {
			conn, process, err := c.hold(&net.TCPConn{}, access.Identity{IsUser: true, UID: 1, PID: pid})
			if err != nil {
				t.Fatal(err)
			}
			return conn, newPace(process)
		}
		conn, first := hold(1)
		for range 3 * resetRate {
			first.gaveUp()
		}
		waits := func(p *pace) time.Duration {
			began := time.Now()
			p.next(1)
			return time.Since(began)
		}
		_ = conn.Close() // of nothing
		_, again := hold(1)
		_, other := hold(2)
		if took := waits(other); took != 0 {
			t.Errorf("another process waits %v", took)
		}
		for pid := range int32(4 * maxConnections) { // some come and go, and are forgotten
			conn, _ := hold(3 + pid)
			_ = conn.Close()
		}
		if len(c.processes) > 2*maxConnections {
			t.Errorf("%d processes", len(c.processes))
		}
		_, third := hold(1)
		go func() { // who waits is woken by the end of the connection
			<-time.NewTimer(time.Second).C
			third.end()
			third.end()
		}()
		if took := waits(third); took != time.Second {
			t.Errorf("it waits %v", took)
		}
		if took := waits(again); took < time.Second/2 || took > 2*time.Second {
			t.Errorf("the process waits %v", took)
		}
	})
}

// Who is slowed down is a line and an event.
func TestSlowedIsAudited(t *testing.T) {
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	}()
	var log bytes.Buffer
	a := newAuditor(hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}), m)
	a.slowed(newCaller(ownOnly(), access.Identity{IsUser: true, UID: 7, PID: 8}), tooManyResets)
	if line := log.String(); !strings.Contains(line, "caller=uid:7 uid=7 pid=8 outcome=slowed") || !strings.Contains(line, tooManyResets) || strings.Count(line, "\n") != 1 {
		t.Error(line)
	}
	events, _ := m.Events()
	if len(events) == 0 || events[0].Type != "connection.slowed" || events[0].Cause.Actor != "uid:7" || !strings.Contains(events[0].Message, tooManyResets) {
		t.Error(events)
	}
}
