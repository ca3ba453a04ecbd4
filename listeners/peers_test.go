package listeners_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// haproxy runs HAProxy with a configuration until the test ends.
func haproxy(t *testing.T, dir, config string) {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("needs HAProxy: apt-get install haproxy")
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte("defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"+config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-db", "-q", "-f", file)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// HAProxy reads the PROXY headers that forward sends, and forward's listener
// those that HAProxy sends.
func TestPeersHAProxy(t *testing.T) {
	h := newHost(t, "epoll", 0)
	dir := shortDir(t)
	echo := h.open(withProxy(t, spec(t, listeners.Echo{}, "", "unix://"+dir+"/echo"), listeners.ProxyPolicy{Mode: listeners.ProxyRequired}))
	haproxy(t, dir, fmt.Sprintf(`
listen in
  bind unix@%[1]s/in accept-proxy
  mode http
  http-request return status 200 content-type text/plain lf-string "%%[src] %%[src_port]"
listen out1
  bind unix@%[1]s/out1
  server s unix@%[1]s/echo send-proxy
listen out2
  bind unix@%[1]s/out2 accept-proxy
  server s unix@%[1]s/echo send-proxy-v2
`, dir))
	for _, path := range []string{"in", "out1", "out2"} {
		eventually(t, func() bool { c, err := net.Dial("unix", dir+"/"+path); return err == nil && c.Close() == nil }, func() string { return "HAProxy does not come up" })
	}
	for _, version := range []uint32{1, 2} {
		for _, from := range []string{"tcp://127.0.0.1:0", "tcp://[::1]:0"} {
			f := &listeners.Forward{Upstreams: []listeners.Upstream{{Address: "unix://" + dir + "/in"}}, SendProxy: version}
			l := h.open(spec(t, f, "", from))
			c := dial(t, h.addr(l, 0))
			io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
			client := c.LocalAddr().(*net.TCPAddr)
			want := fmt.Sprintf("%s %d", client.IP, client.Port)
			if got, err := io.ReadAll(c); err != nil || len(got) < len(want) || string(got[len(got)-len(want):]) != want {
				t.Errorf("version %d: %q, %v; want %s", version, got, err, want)
			}
			// And through HAProxy to us: who it says it is from is the first.
			f = &listeners.Forward{Upstreams: []listeners.Upstream{{Address: "unix://" + dir + "/out2"}}, SendProxy: version}
			l = h.open(spec(t, f, "", from))
			c = dial(t, h.addr(l, 0))
			ask(t, c, []byte("hello"))
			found := false
			for _, st := range h.conns() {
				found = found || st.Proxied.String() == "tcp://"+c.LocalAddr().String()
			}
			if !found {
				t.Errorf("version %d: nobody is from %v", version, c.LocalAddr())
			}
			c.Close()
		}
	}
	ask(t, dial(t, &net.UnixAddr{Net: "unix", Name: dir + "/out1"}), []byte("hello"))
	if st := h.stats(echo); st.Accepted == 0 {
		t.Errorf("%+v", st)
	}
}
