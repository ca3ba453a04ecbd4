package manager_test

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
		for kind := ""; kind != "listener.healed"; {
			e, err := m.NextEvent(ctx, seq)
			if err != nil {
				t.Fatal(err)
			}
			seq, kind = e.Seq, e.Type
		}
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
