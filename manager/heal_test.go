package manager_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/manager"
)

// A socket that somebody else shuts is bound again at the same address, also with
// a port that the kernel chose, and with an event; connections go on.
func TestHealsWhatWasShutFromOutside(t *testing.T) {
	m := newManager(t, t.TempDir())
	defer shutdown(t, m)
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "s")
	info, _, err := m.Create(ctx, "web", echo("tcp://127.0.0.1:0", "tcp://[::1]:0", "unix://"+path), false)
	if err != nil {
		t.Fatal(err)
	}
	addr := info.Live.Bound[0].IP.String()
	_, seq := m.Events()
	_, files, err := m.Give(ctx, []string{"web"}) // which pauses
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	if _, err := m.Resume(ctx, "web", ""); err != nil {
		t.Fatal(err)
	}
	open, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	say(t, open)
	for _, fd := range files {
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
			t.Error(err)
		}
		_ = unix.Close(fd)
		seq = untilHealed(t, m, seq)
	}
	say(t, open)
	ping(t, addr)
	ping(t, info.Live.Bound[1].IP.String())
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c)
}

// say has an open connection echo a byte.
func say(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte{'x'}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// untilHealed waits until a socket was lost and bound again.
func untilHealed(t *testing.T, m *manager.Manager, seq uint64) uint64 {
	t.Helper()
	var kinds []string
	for {
		e, err := m.NextEvent(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		seq, kinds = e.Seq, append(kinds, e.Type)
		if e.Type == "listener.healed" {
			break
		}
	}
	if !slices.Contains(kinds, "listener.lost") {
		t.Error("it is told of as healed, and was not as lost:", kinds)
	}
	return seq
}

// A datagram socket that somebody else shuts, for either direction, is bound again.
// shutdown(2) says ENOTCONN of an unconnected UDP socket, and shuts it. A datagram
// of no bytes, which is received as nothing too, heals nothing.
func TestHealsDatagramSocketsThatWereShut(t *testing.T) {
	ways := map[string]int{"reading": unix.SHUT_RD, "writing": unix.SHUT_WR, "both": unix.SHUT_RDWR}
	for _, uri := range []string{"udp://127.0.0.1:0", "udp://[::1]:0", "unixgram://" + filepath.Join(t.TempDir(), "g")} {
		for way, how := range ways {
			if strings.HasPrefix(uri, "unixgram") && how == unix.SHUT_WR {
				continue // that cannot be told: EPIPE may be about the other's socket
			}
			network, _, _ := strings.Cut(uri, ":")
			t.Run(network+" "+way, func(t *testing.T) {
				m := newManager(t, t.TempDir())
				defer shutdown(t, m)
				ctx := t.Context()
				info, _, err := m.Create(ctx, "dns", echo(uri), false)
				if err != nil {
					t.Fatal(err)
				}
				_, seq := m.Events()
				_, files, err := m.Give(ctx, []string{"dns"})
				if err != nil || len(files) != 1 {
					t.Fatal(files, err)
				}
				if _, err := m.Resume(ctx, "dns", ""); err != nil {
					t.Fatal(err)
				}
				c := dialPacket(t, info)
				if _, err := c.Write(nil); err != nil {
					t.Fatal(err)
				}
				if n, err := c.Read(make([]byte, 10)); n != 0 || err != nil {
					t.Fatal("a datagram of no bytes has the answer", n, err)
				}
				say(t, c)
				if err := unix.Shutdown(files[0], how); err != nil && err != unix.ENOTCONN {
					t.Fatal(err)
				}
				_ = unix.Close(files[0])
				if how == unix.SHUT_WR { // found out about when it answers
					if _, err := c.Write([]byte{'x'}); err != nil {
						t.Fatal(err)
					}
				}
				untilHealed(t, m, seq)
				c = dialPacket(t, info) // at the same address
				say(t, c)
				after, err := m.Get(ctx, "dns", true)
				if err != nil || after.Live.Bound[0] != info.Live.Bound[0] {
					t.Errorf("it was bound to %v, and now to %v: %v", info.Live.Bound, after.Live.Bound, err)
				}
				if events, _ := m.Events(); countOf(events, "listener.lost") != 1 {
					t.Error("a loss was told of more than once")
				}
			})
		}
	}
}

func countOf(events []manager.Event, kind string) (n int) {
	for _, e := range events {
		if e.Type == kind {
			n++
		}
	}
	return n
}

// dialPacket connects a datagram socket to the listener's first address.
func dialPacket(t *testing.T, info manager.Info) net.Conn {
	t.Helper()
	a := info.Live.Bound[0]
	var c net.Conn
	var err error
	if a.Path != "" {
		me := filepath.Join(t.TempDir(), "c") // each its own
		c, err = net.DialUnix("unixgram", &net.UnixAddr{Name: me, Net: "unixgram"}, &net.UnixAddr{Name: a.Path, Net: "unixgram"})
	} else {
		c, err = net.Dial("udp", a.IP.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// What root destroys, with the real ss -K, is bound again at the same address.
// Without root TestHealsWhatWasShutFromOutside and the test of datagram sockets shut
// with shutdown(2) what they have a copy of.
func TestHealsWhatWasDestroyed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("sockets are destroyed by root only (ss -K)")
	}
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip("there is no ss (apt-get install iproute2)")
	}
	m := newManager(t, t.TempDir())
	defer shutdown(t, m)
	ctx := t.Context()
	for _, tt := range []struct{ name, network, kind string }{
		{"tcp4", "tcp://127.0.0.1:0", "-tl"},
		{"tcp6", "tcp://[::1]:0", "-tl"},
		{"udp4", "udp://127.0.0.1:0", "-ua"},
		{"udp6", "udp://[::1]:0", "-ua"},
	} {
		info, _, err := m.Create(ctx, tt.name, echo(tt.network), false)
		if err != nil {
			t.Fatal(err)
		}
		for _, chosen := range []string{"by the kernel", "by number"} {
			a := info.Live.Bound[0].IP
			if chosen == "by number" {
				if _, err := m.Delete(ctx, tt.name, "", 0, false); err != nil {
					t.Fatal(err)
				}
				scheme, _, _ := strings.Cut(tt.network, "://")
				if info, _, err = m.Create(ctx, tt.name+"n", echo(scheme+"://"+a.String()), false); err != nil {
					t.Fatal(err)
				}
			}
			_, seq := m.Events()
			began := time.Now()
			out, err := exec.Command("ss", "-K", "-H", "-n", tt.kind, "src", a.String()).CombinedOutput()
			if err != nil || !strings.Contains(string(out), ":") {
				t.Skipf("this kernel destroys no sockets (CONFIG_INET_DIAG_DESTROY): %s, %v", out, err)
			}
			untilHealed(t, m, seq)
			t.Logf("%s, port chosen %s: healed %v after ss -K began", tt.name, chosen, time.Since(began))
			if strings.HasPrefix(tt.name, "udp") {
				say(t, dialPacket(t, info))
			} else {
				ping(t, a.String())
			}
		}
	}
}
