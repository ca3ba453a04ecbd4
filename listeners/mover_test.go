package listeners_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// A mover has a loop with a Set on it, and moves all of it to another loop, as
// an upgrade moves it to another process.
type mover struct {
	t    *testing.T
	loop *mux.Loop
	set  *listeners.Set
	ls   map[string]*listeners.Listener
	ran  chan error
	kept *listeners.Kept // nil: nobody keeps anything
	log  logged          // of all that is debug and above

	between  int                            // connections that moved with requests, and nothing to be sent
	counters map[string]*listeners.Counters // once it has moved
}

func newMover(t *testing.T) *mover {
	t.Helper()
	return newKeptMover(t, nil)
}

func newKeptMover(t *testing.T, kept *listeners.Kept) *mover {
	t.Helper()
	noLeaks(t)
	m := &mover{t: t, ls: map[string]*listeners.Listener{}, kept: kept}
	loop, err := mux.NewLoop(poller(t))
	if err != nil {
		t.Fatal(err)
	}
	m.begin(loop)
	m.run()
	t.Cleanup(m.end)
	return m
}

func poller(t *testing.T) mux.Poller {
	t.Helper()
	p, err := mux.NewPoller("epoll")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (m *mover) begin(loop *mux.Loop) {
	m.loop = loop
	m.set = listeners.NewSet(listeners.SetConfig{Loop: loop, Log: hclog.New(&hclog.LoggerOptions{Output: &m.log, Level: hclog.Debug}), Changed: func(*listeners.Listener) {}, Kept: m.kept})
}

func (m *mover) run() {
	ran, loop := make(chan error, 1), m.loop
	m.ran = ran
	go func() { ran <- loop.Run() }()
}

func (m *mover) do(f func() error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := m.loop.Do(ctx, f); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mover) open(name string, s listeners.Spec) *listeners.Listener {
	m.t.Helper()
	l, err := listeners.Open(name, s)
	if err != nil {
		m.t.Fatal(err)
	}
	m.do(func() error { return l.Attach(m.set, &listeners.Counters{}) })
	m.ls[name] = l
	return l
}

func (m *mover) status(name string) (st listeners.Status) {
	m.t.Helper()
	m.do(func() error { st = m.ls[name].Status(true); return nil })
	return st
}

func (m *mover) addr(name string) net.Addr {
	m.t.Helper()
	a := m.status(name).Bound[0]
	switch n := string(a.Network.Base()); n {
	case "tcp":
		return net.TCPAddrFromAddrPort(a.IP)
	case "udp":
		return net.UDPAddrFromAddrPort(a.IP)
	default:
		return &net.UnixAddr{Net: n, Name: a.Path}
	}
}

// move goes on on another loop. abandon lets it fail at the last moment.
func (m *mover) move(abandon bool) {
	m.t.Helper()
	old := mover{t: m.t, loop: m.loop, set: m.set, ran: m.ran}
	var ls []*listeners.Listener
	for _, l := range m.ls {
		ls = append(ls, l)
	}
	epoch, err := m.loop.Epoch()
	if err != nil {
		m.t.Fatal(err)
	}
	release := m.set.HoldStarts(time.Minute)
	defer release()
	old.do(func() error {
		t, err := m.set.Transfer(ls, m.kept, false)
		if err != nil {
			return err
		}
		if !abandon {
			loop, err := mux.ContinueLoop(poller(m.t), epoch)
			if err != nil {
				return err
			}
			m.begin(loop)
		}
		r := m.set.Resume(m.kept)
		var wire bytes.Buffer
		to, from := gob.NewEncoder(&wire), gob.NewDecoder(&wire)
		for more := true; more; more = t.Next() {
			if err := to.Encode(&t.Saved); err != nil {
				return err
			}
			var saved listeners.Saved
			if err := from.Decode(&saved); err != nil {
				return err
			}
			files := make([]int, len(t.Files))
			for i, fd := range t.Files {
				if files[i], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
					return err
				}
			}
			for _, c := range saved.Conns {
				if len(c.In) > 0 && len(c.Out)+len(c.Shared) == 0 {
					m.between++
				}
			}
			if abandon {
				for _, fd := range files {
					_ = unix.Close(fd)
				}
				continue
			}
			if err := r.TakeUp(&saved, files); err != nil {
				return err
			}
		}
		if abandon {
			return nil
		}
		if err := r.Finish(); err != nil {
			return err
		}
		m.ls, m.counters = r.Listeners, r.Counters
		m.run()
		t.Done()
		for _, l := range ls {
			l.Stop(time.Minute)
		}
		return nil
	})
	if !abandon {
		old.ls = map[string]*listeners.Listener{}
		for _, l := range ls {
			old.ls[l.Name+" before"] = l
		}
		old.end()
	}
}

func (m *mover) end() {
	for name, l := range m.ls {
		m.do(func() error { l.Stop(0); return nil })
		eventually(m.t, func() bool { return m.status(name).State == listeners.Closed }, func() string { return name + " does not close" })
	}
	m.loop.Stop()
	err := <-m.ran
	m.set.Close()
	if err := errors.Join(err, m.loop.Close()); err != nil {
		m.t.Error(err)
	}
}
