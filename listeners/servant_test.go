package listeners_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// Each connection has a process, for every handler that needs nothing of others.
func TestProcessHandlers(t *testing.T) {
	h := newHost(t, "epoll", 0)
	dir := shortDir(t)
	open := func(handler listeners.HandlerSpec, options, where string) *listeners.Listener {
		s, err := spec(t, handler, options, where).WithConcurrency(listeners.InProcess)
		if err != nil {
			t.Fatal(err)
		}
		return h.open(s)
	}
	t.Run("echo", func(t *testing.T) {
		for i, where := range []string{"tcp://127.0.0.1:0", "unix://" + filepath.Join(dir, "e"), "unixpacket://" + filepath.Join(dir, "p")} {
			l := open(listeners.Echo{}, "", where)
			c := dial(t, h.addr(l, 0))
			other := dial(t, h.addr(l, 0)) // says nothing, and has a process of its own
			defer other.Close()
			data := bytes.Repeat([]byte("0123456789"), 5000)
			go c.Write(data)
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c, got); !bytes.Equal(got, data) || err != nil {
				t.Errorf("%d: %v", i, err)
			}
			eventually(t, func() bool {
				pids := map[int]bool{}
				for _, st := range h.conns() {
					if st.Program > 0 {
						pids[st.Program] = true
					}
				}
				return len(pids) >= 2
			}, func() string { return fmt.Sprintf("%+v", h.conns()) })
			c.Close()
		}
	})
	t.Run("http", func(t *testing.T) {
		l := open(&listeners.HTTP{Body: []byte("Hello, World")}, "http.keepalive_timeout=10s", "tcp://127.0.0.1:0")
		client := http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for range 3 {
			resp, err := client.Post("http://"+h.addr(l, 0).String(), "text/plain", strings.NewReader("a question"))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "Hello, World" || err != nil {
				t.Errorf("%q: %v", body, err)
			}
		}
	})
	t.Run("small", func(t *testing.T) {
		if got := askOnce(t, h.addr(open(listeners.Time{}, "", "tcp://127.0.0.1:0"), 0)); len(got) != 4 {
			t.Errorf("time %x", got)
		}
		if got := askOnce(t, h.addr(open(&listeners.Reply{Payload: []byte("go away\n")}, "", "tcp://127.0.0.1:0"), 0)); string(got) != "go away\n" {
			t.Errorf("reply %q", got)
		}
		c := dial(t, h.addr(open(listeners.Chargen{}, "", "tcp://127.0.0.1:0"), 0))
		line, err := bufio.NewReader(c).ReadString('\n')
		if len(line) != 74 || err != nil {
			t.Errorf("chargen %q: %v", line, err)
		}
	})
}

// What a process cannot do is refused, and says why.
func TestProcessRefused(t *testing.T) {
	behind := spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0")
	behind, err := behind.WithProxy(listeners.ProxyPolicy{Mode: listeners.ProxyRequired})
	if err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]listeners.Spec{
		"begin with a PROXY header": behind,
		"spec.options.fault.delay: is not for the discard handler in a process": spec(t, listeners.Discard{}, "fault.delay=1s", "tcp://127.0.0.1:0"),
		"is not for the forward handler":                                        spec(t, &listeners.Forward{Upstreams: []listeners.Upstream{{Address: "tcp://127.0.0.1:1"}}}, "", "tcp://127.0.0.1:0"),
		"is not for the echo handler of datagrams":                              spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"),
		fmt.Sprintf("is not for the %s handler", "func"):                        spec(t, &listeners.Func{Name: "given"}, "", "tcp://127.0.0.1:0"),
	} {
		if _, err := s.WithConcurrency(listeners.InProcess); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
