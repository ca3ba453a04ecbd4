package listeners_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// takeOver takes one connection over.
func takeOver(t *testing.T, c *net.UnixConn) (net.Conn, listeners.HandoffHeader) {
	t.Helper()
	data, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(data, rights)
	if err != nil {
		t.Fatal(err)
	}
	var header listeners.HandoffHeader
	if err := json.Unmarshal(data[:n], &header); err != nil {
		t.Fatalf("%q: %v", data[:n], err)
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatal(err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "handed over")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, header
}

func listenPacket(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.SetDeadline(time.Now().Add(20 * time.Second))
	return l
}

func acceptUnix(t *testing.T, l *net.UnixListener) *net.UnixConn {
	t.Helper()
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// Each connection goes to the process, with what the client has said, and is
// none of ours any more.
func TestHandoff(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		process := listenPacket(t, dir+"/p")
		l := h.open(spec(t, &listeners.Handoff{Path: dir + "/p"}, "", "tcp://127.0.0.1:0", "unix://"+dir+"/s"))
		var from *net.UnixConn
		for i := range 6 {
			client := dial(t, h.addr(l, i%2))
			io.WriteString(client, "hello")
			if from == nil {
				from = acceptUnix(t, process)
			}
			conn, header := takeOver(t, from)
			if header.Listener != "test" || i%2 == 0 && (header.Remote != uri(client.LocalAddr()) || header.Local != uri(client.RemoteAddr())) {
				t.Errorf("%+v", header)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v", got, err)
			}
			io.WriteString(conn, "answer")
			conn.Close()
			if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
		if st := h.status(l); st.Active != 0 || st.Stats.Accepted != 6 {
			t.Errorf("%+v", st)
		}
	})
}

// While nobody is there connections wait, over a restart of the process too;
// nothing spins meanwhile.
func TestHandoffWaits(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, &listeners.Handoff{Path: dir + "/p"}, "", "tcp://127.0.0.1:0"))
		for range 2 {
			var clients []net.Conn
			for range 100 {
				clients = append(clients, dial(t, h.addr(l, 0)))
			}
			if n := h.turns(func() { h.until(100 * time.Millisecond) }); n > 110 {
				t.Errorf("%d turns", n)
			}
			process := listenPacket(t, dir+"/p")
			from := acceptUnix(t, process)
			for i := range clients {
				conn, _ := takeOver(t, from)
				fmt.Fprintf(conn, "%d", i)
				conn.Close()
			}
			for _, c := range clients {
				if got, err := io.ReadAll(c); len(got) == 0 || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				c.Close()
			}
			from.Close()
			process.Close()
		}
		h.do(func() {
			at := "unixpacket://" + dir + "/p "
			down, up := at+"false nobody takes connections over: ", at+"true "
			if len(h.told) != 4 || !strings.HasPrefix(h.told[0], down) || h.told[1] != up || !strings.HasPrefix(h.told[2], down) || h.told[3] != up {
				t.Errorf("events %q", h.told)
			}
		})
		// When it stops, who waits is closed.
		c := dial(t, h.addr(l, 0))
		eventually(t, func() bool { return h.status(l).Active == 1 }, func() string { return "not accepted" })
		h.do(func() { l.Stop(0) })
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
}

// The receiver in Python of the documentation takes them.
func TestHandoffPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	h := newHost(t, "epoll", 0)
	dir := shortDir(t)
	cmd := exec.CommandContext(t.Context(), python, "../docs/handoff/receiver.py", dir+"/p")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	l := h.open(spec(t, &listeners.Handoff{Path: dir + "/p"}, "", "tcp://127.0.0.1:0"))
	for range 3 {
		c := dial(t, h.addr(l, 0))
		want := "hello " + uri(c.LocalAddr()) + "\n"
		if got, err := io.ReadAll(c); string(got) != want || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}
