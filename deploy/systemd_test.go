//go:build linux

package deploy_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit bounds each of the tests, whatever happens.
const limit = 90 * time.Second

// uid is the user sockmgr of the sandbox: sysusers.d makes it elsewhere.
const uid = 64999

// sandboxUnits are what the units of deploy/ cannot have in a sandbox, and why.
var sandboxUnits = map[string]string{
	// There is no target of the distribution to come after, by intention.
	"units/sandbox.target":                "[Unit]\nDefaultDependencies=no\n",
	"units/sockmgr.socket.d/sandbox.conf": "[Unit]\nDefaultDependencies=no\n",
	"units/sockmgr.service.d/sandbox.conf": "[Unit]\nDefaultDependencies=no\n" +
		// There is no journal.
		"[Service]\nStandardOutput=append:/var/log/sockmgr\nStandardError=append:/var/log/sockmgr\n",
	"etc/passwd": fmt.Sprintf("root:x:0:0::/root:/bin/false\nsockmgr:x:%d:%d::/var/lib/sockmgr:/bin/false\n", uid, uid),
	"etc/group":  fmt.Sprintf("root:x:0:\nsockmgr:x:%d:\n", uid),
}

// installed is a sandbox that has the units and the programs as docs/operations.md
// says they are installed.
type installed struct {
	*sandbox
	sockctlProgram string
}

// buildPrograms builds the daemon and sockctl, which need no library inside.
func buildPrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "../cmd/sockmgr", "../cmd/sockctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	return dir
}

func install(ctx context.Context, t *testing.T, programs string) *installed {
	t.Helper()
	p := plan{Copies: map[string]string{"usr/local/bin/sockmgr": programs + "/sockmgr"}, Texts: map[string]string{}}
	maps.Copy(p.Texts, sandboxUnits)
	for to, from := range map[string]string{
		"units/sockmgr.service": "sockmgr.service", "units/sockmgr.socket": "sockmgr.socket", "etc/sockmgr/sockmgr.yaml": "sockmgr.yaml",
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		p.Texts[to] = string(text)
	}
	s := &installed{sandbox: startSandbox(ctx, t, p), sockctlProgram: programs + "/sockctl"}
	t.Cleanup(func() { // while the sandbox is there
		text, err := os.ReadFile(s.path("/var/log/sockmgr"))
		if t.Failed() || strings.Contains(string(text), "panic:") {
			t.Errorf("sockmgr logged: %s %v", text, err)
		}
	})
	return s
}

func (s *installed) sockctl(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, s.sockctlProgram, append([]string{"--addr", "unix://" + s.path("/run/sockmgr/control.sock")}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("sockctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// list is what sockctl ls says of names, states and addresses.
func (s *installed) list(ctx context.Context, t *testing.T) string {
	t.Helper()
	var all []string
	for line := range strings.Lines(s.sockctl(ctx, t, "ls")) {
		all = append(all, strings.Join(strings.Fields(line)[:3], " "))
	}
	return strings.Join(all, "\n")
}

// daemon is the pid of the service, as the host has it: 0 if it has none.
func (s *installed) daemon() int {
	text, err := os.ReadFile(filepath.Join(s.cgroup, "system.slice/sockmgr.service/cgroup.procs"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// listening is the line of /proc/net/tcp of what listens at 127.0.0.1:port, in fields.
func (s *installed) listening(t *testing.T, port int) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 9 && f[1] == fmt.Sprintf("0100007F:%04X", port) && f[3] == "0A" {
			return f
		}
	}
	return nil
}

// bound is the inode of the socket at port 80, and the uid of who made it.
func (s *installed) bound(t *testing.T) (inode, owner string) {
	t.Helper()
	f := s.listening(t, 80)
	if f == nil {
		return "", ""
	}
	return f[9], f[7]
}

// queued is how many wait to be accepted.
func (s *installed) queued(t *testing.T, port int) int64 {
	t.Helper()
	f := s.listening(t, port)
	if f == nil {
		return 0
	}
	_, waiting, _ := strings.Cut(f[4], ":")
	n, err := strconv.ParseInt(waiting, 16, 64)
	if err != nil {
		t.Fatal(f, err)
	}
	return n
}

// statusOf are lines of /proc/PID/status.
var statusOf = regexp.MustCompile(`(?m)^(Uid|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):\s+(\S+)`)

// The units of deploy/ under a real systemd: a start, kills, restarts, a stop, and
// a start by the first who calls.
func TestUnderSystemd(t *testing.T) {
	needSandbox(t)
	programs := buildPrograms(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s := install(ctx, t, programs)

	began := time.Now()
	s.systemctl(ctx, t, "start", "sockmgr.service") // returns when the daemon said READY=1
	t.Log("systemctl start:", time.Since(began))
	if state := s.show(ctx, t, "ActiveState"); state != "active" {
		t.Fatal("after the start it is", state)
	}
	s.checkRights(t)
	if most := s.show(ctx, t, "FileDescriptorStoreMax"); most != "16384" {
		t.Error("systemd keeps at most", most)
	}

	s.sockctl(ctx, t, "start", "web", "--listen", "tcp://127.0.0.1:80", "--handler", "echo")
	s.sockctl(ctx, t, "start", "more", "--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0", "--handler", "echo")
	s.sockctl(ctx, t, "start", "held", "--listen", "tcp://127.0.0.1:81", "--handler", "echo")
	s.sockctl(ctx, t, "pause", "held")
	before, owner := s.bound(t)
	if before == "" || owner != strconv.Itoa(uid) {
		t.Fatalf("port 80 is bound by uid %q (inode %q)", owner, before)
	}
	list := s.list(ctx, t)

	for _, event := range []struct {
		what  string
		times int
		do    func()
	}{
		{"kill -9", fromEnv(t, "SYSTEMD_KILLS", 10), func() {
			if err := syscall.Kill(s.daemon(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}},
		{"systemctl restart", fromEnv(t, "SYSTEMD_RESTARTS", 2), func() { s.systemctl(ctx, t, "restart", "sockmgr.service") }},
		{"sockctl daemon upgrade", fromEnv(t, "SYSTEMD_UPGRADES", 2), func() { s.sockctl(ctx, t, "daemon", "upgrade") }},
	} {
		logged := len(s.logged(t))
		s.meanwhile(ctx, t, event.what, event.times, event.do)
		if text := s.logged(t)[logged:]; event.what != "kill -9" && strings.Contains(text, "[WARN]") {
			t.Errorf("%s: an ordinary operation is warned of:\n%s", event.what, text)
		}
		t.Logf("%s: restarts by systemd: %s, sockets that it keeps: %s", event.what,
			s.show(ctx, t, "NRestarts"), s.show(ctx, t, "NFileDescriptorStore"))
		if after, _ := s.bound(t); after != before {
			t.Errorf("%s: port 80 had socket %s and has %s", event.what, before, after)
		}
		if now := s.list(ctx, t); now != list {
			t.Errorf("%s: there were\n%sand are\n%s", event.what, list, now)
		}
	}
	s.stuck(ctx, t, before)
	s.sockctl(ctx, t, "rm", "more") // the ports that the kernel chose are let go by a stop
	list = s.list(ctx, t)
	s.systemctl(ctx, t, "stop", "sockmgr.service")
	if inode, _ := s.bound(t); inode != "" || s.daemon() != 0 {
		t.Errorf("after the stop: port 80 has socket %q, the daemon is process %d", inode, s.daemon())
	}
	if result := s.show(ctx, t, "Result"); result != "success" {
		t.Error("the stop was", result)
	}
	s.activation(ctx, t, list)
}

// stuck: a daemon whose loop does not turn is ended by WatchdogSec=, and the next
// one has its sockets. The time is shortened for the test.
func (s *installed) stuck(ctx context.Context, t *testing.T, before string) {
	t.Helper()
	if err := os.WriteFile(s.path(unitDir+"/sockmgr.service.d/shorter.conf"), []byte("[Service]\nWatchdogSec=1s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.systemctl(ctx, t, "daemon-reload")
	s.systemctl(ctx, t, "restart", "sockmgr.service")
	s.stays(ctx, t)
	had := s.daemon()
	began := time.Now()
	if err := syscall.Kill(had, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.until(ctx, t, "systemd misses the daemon", func() bool { return strings.Contains(s.log.text(), "Watchdog timeout") })
	t.Log("a daemon that stands still is noticed after", time.Since(began))
	if err := syscall.Kill(had, syscall.SIGCONT); err != nil { // what systemd sent is SIGABRT, which waits until then
		t.Fatal(err)
	}
	if err := s.inNetwork(func() error { return served("127.0.0.1:80", patience) }); err != nil {
		t.Error("after the watchdog:", err)
	}
	s.until(ctx, t, "another daemon is there", func() bool { now := s.daemon(); return now != 0 && now != had })
	if after, _ := s.bound(t); after != before {
		t.Errorf("after the watchdog port 80 has socket %s, not %s", after, before)
	}
}

// logged is the daemon's log.
func (s *installed) logged(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.path("/var/log/sockmgr"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// stays: the process that has taken over at an upgrade feeds the watchdog too, which
// systemd has told the one before of, by its pid.
func (s *installed) stays(ctx context.Context, t *testing.T) {
	t.Helper()
	restarts := s.show(ctx, t, "NRestarts")
	s.sockctl(ctx, t, "daemon", "upgrade")
	var pid int
	s.until(ctx, t, "one process is there", func() bool { pid = s.daemon(); return pid != 0 })
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); <-pace.C {
		if err := s.inNetwork(func() error { return served("127.0.0.1:80", patience) }); err != nil {
			t.Fatal("after an upgrade:", err)
		}
	}
	if now := s.daemon(); now != pid || s.show(ctx, t, "NRestarts") != restarts {
		t.Errorf("systemd has ended the daemon that had taken over: process %d was %d", now, pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil { // and it notices the end of a process that it has not started
		t.Fatal(err)
	}
	if err := s.inNetwork(func() error { return served("127.0.0.1:80", patience) }); err != nil {
		t.Fatal("after an upgrade and a kill:", err)
	}
	s.until(ctx, t, "another daemon is ready", func() bool {
		now := s.daemon()
		return now != 0 && now != pid && s.show(ctx, t, "ActiveState") == "active"
	})
}

// activation: systemd has the control socket, and starts the daemon for who calls.
func (s *installed) activation(ctx context.Context, t *testing.T, list string) {
	t.Helper()
	s.systemctl(ctx, t, "start", "sockmgr.socket")
	if pid := s.daemon(); pid != 0 {
		t.Fatal("the daemon is there before somebody calls: process", pid)
	}
	path, err := os.Stat(s.path("/run/sockmgr/control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if now := s.list(ctx, t); now != list {
		t.Errorf("started by a call, it has\n%snot\n%s", now, list)
	}
	t.Log("the call that starts the daemon took", time.Since(began))
	s.systemctl(ctx, t, "restart", "sockmgr.service")
	if err := syscall.Kill(s.daemon(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if now := s.list(ctx, t); now != list {
		t.Errorf("after a restart and a kill it has\n%snot\n%s", now, list)
	}
	if now, err := os.Stat(s.path("/run/sockmgr/control.sock")); err != nil || !os.SameFile(path, now) {
		t.Error("the path of the control socket is another:", err)
	}
	s.systemctl(ctx, t, "stop", "sockmgr.socket", "sockmgr.service")
	if pid := s.daemon(); pid != 0 {
		t.Error("after the stop there is process", pid)
	}
}

// checkRights asks the kernel what the daemon may do.
func (s *installed) checkRights(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon()))
	if err != nil {
		t.Fatal(err)
	}
	const bindService = "0000000000000400"
	want := map[string]string{"Uid": strconv.Itoa(uid), "CapEff": bindService, "CapBnd": bindService, "CapAmb": bindService, "NoNewPrivs": "1", "Seccomp": "2"}
	for _, m := range statusOf.FindAllStringSubmatch(string(text), -1) {
		if want[m[1]] != m[2] {
			t.Errorf("%s of the daemon is %s, not %s", m[1], m[2], want[m[1]])
		}
		delete(want, m[1])
	}
	if len(want) > 0 {
		t.Errorf("the kernel does not say %v", want)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", s.daemon()))
	if err != nil {
		t.Fatal(err)
	}
	writable := map[string]bool{}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		writable[f[4]] = strings.HasPrefix(f[5], "rw") // the last one at a place is what is seen
	}
	for at, is := range map[string]bool{"/": false, "/var": false, "/run": false, "/home": false, "/proc/sys": false, "/run/sockmgr": true, "/var/lib/sockmgr": true, "/tmp": true} {
		if now, there := writable[at]; now != is || !there {
			t.Errorf("%s of the daemon: a mount of its own is %v, writable is %v, not %v", at, there, now, is)
		}
	}
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/home", s.daemon())); err != nil || len(entries) > 0 {
		t.Errorf("the daemon sees %v in /home: %v", entries, err)
	}
}
