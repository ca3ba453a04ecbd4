package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/internal/handover"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// shared is a log that several goroutines write.
type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// audits returns the lines of the audit since the last time.
func (s *shared) audits(t *testing.T) (lines []map[string]any) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.text.String()) {
		one := map[string]any{}
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if one["@message"] == "audit" {
			lines = append(lines, one)
		}
	}
	s.text.Reset()
	return lines
}

// giver is a manager with two listeners, whose sockets are given at the path.
func giver(t *testing.T, rules *access.Rules) (string, *shared, *manager.Manager) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // other users shall come in
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := &shared{}
	l := hclog.New(&hclog.LoggerOptions{Output: log, JSONFormat: true})
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web-1", "db"} {
		if _, _, err := m.Create(t.Context(), name, manager.Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: listeners.Echo{}}, false); err != nil {
			t.Fatal(err)
		}
	}
	keep := newKeeper("", nil, true, l)
	control := "unix://" + filepath.Join(dir, "c")
	own, err := listenControl(keep, control, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "c"), 0o606); err != nil { // as SocketMode= of systemd may be
		t.Fatal(err)
	}
	end := serveHandover(listenHandover(keep, []string{control}, l), m, keep, rules, l)
	t.Cleanup(func() {
		end()
		_ = own.Close()
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	return handover.Path(filepath.Join(dir, "c")), log, m
}

// TestAsker is the other process: it asks, and tells what came.
func TestAsker(t *testing.T) {
	var r handover.Request
	path := os.Getenv("SOCKMGR_TEST_ASK")
	if path == "" {
		t.Skip("SKIPPED: it is for the tests below")
	}
	if err := json.Unmarshal([]byte(os.Getenv("SOCKMGR_TEST_REQUEST")), &r); err != nil {
		t.Fatal(err)
	}
	_, files, _, err := handover.Ask(path, r)
	why := "ok"
	if refused, ok := errors.AsType[*handover.Error](err); ok {
		why = refused.Reason
	} else if err != nil {
		why = err.Error()
	}
	t.Logf("GOT %d %s", len(files), why)
}

var got = regexp.MustCompile(`GOT (.*)`)

// ask asks for sockets as another process and user, and returns how many came, or
// why none did.
func ask(t *testing.T, path string, uid int, groups []uint32, request handover.Request) (answer string, pid int) {
	t.Helper()
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Open("/proc/self/exe") // its directory may be closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.run=^TestAsker$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "SOCKMGR_TEST_ASK="+path, "SOCKMGR_TEST_REQUEST="+string(text), "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles, cmd.Dir = []*os.File{exe}, "/"
	if uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: groups}}
	}
	out, err := cmd.CombinedOutput()
	found := got.FindSubmatch(out)
	if err != nil || found == nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(found[1]), cmd.Process.Pid
}

// Who owns the daemon takes sockets, and who supervises it is written down.
func TestTakeIsAudited(t *testing.T) {
	path, log, m := giver(t, nil)
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != 0o606 {
		t.Errorf("%v, %v: not the mode of the control socket", fi, err)
	}
	own := os.Geteuid()
	answer, pid := ask(t, path, own, nil, handover.Request{Verb: handover.Take, Names: []string{"web-1", "db"}})
	if answer != "2 ok" {
		t.Error(answer)
	}
	if answer, _ := ask(t, path, own, nil, handover.Request{Verb: handover.Take, Names: []string{"no\x1b\n\u202e"}}); answer != "0 LISTENER_NOT_FOUND" {
		t.Error(answer)
	}
	if answer, _ := ask(t, path, own, nil, handover.Request{Verb: handover.Supervise, Socket: "/nobody/is/there"}); answer == "" {
		t.Error(answer)
	}
	lines := log.audits(t)
	if len(lines) != 3 {
		t.Fatalf("%d lines: %v", len(lines), lines)
	}
	if l := lines[0]; l["method"] != "/handover/Take" || l["what"] != "web-1 db" || l["outcome"] != "done" || l["pid"] != float64(pid) || l["uid"] != float64(own) {
		t.Error(l)
	}
	if lines[1]["outcome"] == "done" || lines[2]["method"] != "/handover/Supervise" || lines[2]["what"] != "/nobody/is/there" {
		t.Error(lines[1:])
	}
	events, _ := m.Events()
	told := 0
	for _, e := range events {
		if e.Type == "call.done" && e.Attributes["method"] == "/handover/Take" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d events", told)
	}
}

// Others take what their role and policy are good for, by the kernel's word for
// who they are, and never supervise.
func TestTakeByRole(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can be other users")
	}
	web := &access.Policy{Names: []string{"web-"}}
	rules, err := access.NewRules(0, []access.Rule{
		{User: "4242", Role: "operator", Policy: web}, {Group: "4300", Role: "operator"}, {User: "4244", Role: "viewer"}, {User: "4245", Role: "admin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	path, log, m := giver(t, rules)
	for _, c := range []struct {
		uid    int
		groups []uint32
		verb   string
		names  []string
		answer string
	}{
		{4242, nil, handover.Take, []string{"web-1"}, "1 ok"},
		{4242, nil, handover.Take, []string{"web-1", "db"}, "0 POLICY_DENIED"},
		{4242, nil, handover.Take, []string{"listeners/db"}, "0 POLICY_DENIED"},
		{4243, nil, handover.Take, []string{"web-1"}, "0 ROLE_MISSING"},
		{4243, []uint32{7, 4300}, handover.Take, []string{"db", "web-1"}, "2 ok"},
		{4244, nil, handover.Take, []string{"web-1"}, "0 ROLE_MISSING"},
		{4245, nil, handover.Take, []string{"db"}, "1 ok"},
		{4245, nil, handover.Supervise, nil, "0 ROLE_MISSING"},
		{4242, nil, handover.Supervise, nil, "0 ROLE_MISSING"},
	} {
		answer, pid := ask(t, path, c.uid, c.groups, handover.Request{Verb: c.verb, Names: c.names, Socket: "@x"})
		if answer != c.answer {
			t.Errorf("%+v: %s", c, answer)
		}
		outcome := "refused"
		if strings.HasSuffix(c.answer, " ok") {
			outcome = "done"
		}
		lines := log.audits(t)
		if len(lines) != 1 || lines[0]["outcome"] != outcome || lines[0]["uid"] != float64(c.uid) || lines[0]["pid"] != float64(pid) {
			t.Errorf("%+v: %v", c, lines)
		}
	}
	events, _ := m.Events()
	refused := 0
	for _, e := range events {
		if e.Type == "call.refused" && strings.HasPrefix(e.Cause.Actor, "uid:42") {
			refused++
		}
	}
	if refused != 6 {
		t.Errorf("%d events of refusals", refused)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	if answer, _ := ask(t, path, 4242, nil, handover.Request{Verb: handover.Take, Names: []string{"web-1"}}); !strings.Contains(answer, "permission denied") {
		t.Error("who may not open the socket:", answer)
	}
}
