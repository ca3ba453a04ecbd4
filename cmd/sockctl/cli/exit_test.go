package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestExitCodes(t *testing.T) {
	table := map[codes.Code]int{
		codes.OK: 0, codes.Canceled: 1, codes.Unknown: 1, codes.InvalidArgument: 2, codes.DeadlineExceeded: 9,
		codes.NotFound: 4, codes.AlreadyExists: 6, codes.PermissionDenied: 5, codes.ResourceExhausted: 7,
		codes.FailedPrecondition: 7, codes.Aborted: 6, codes.OutOfRange: 2, codes.Unimplemented: 12,
		codes.Internal: 1, codes.Unavailable: 8, codes.DataLoss: 1, codes.Unauthenticated: 5,
	}
	f := newFake(t)
	for c, exit := range table {
		if c == codes.OK {
			continue
		}
		if got := failf(c, "x").exit; got != exit {
			t.Errorf("%s is %d, want %d", c, got, exit)
		}
		f.errs["ListListeners"] = refused(c, "SOME_REASON", "no luck", nil)
		text := "Error: no luck\n  reason SOME_REASON\n"
		want(t, f.run(t, "ls"), exit, "", text)
	}
}

func TestErrorText(t *testing.T) {
	f := newFake(t)
	f.errs["CreateListener"] = refused(codes.FailedPrecondition, "ADDRESS_IN_USE",
		"web2: tcp://0.0.0.0:8080 is in use (EADDRINUSE), held by nginx (pid 812)",
		map[string]string{"fix": "sockctl start web2 --listen tcp://0.0.0.0:8081", "errno": "EADDRINUSE"})
	start := []string{"start", "web2", "--listen", "tcp://:8080", "--handler", "echo"}
	want(t, f.run(t, start...), 7, "", `
Error: web2: tcp://0.0.0.0:8080 is in use (EADDRINUSE), held by nginx (pid 812)
  try  sockctl start web2 --listen tcp://0.0.0.0:8081
  reason ADDRESS_IN_USE
`)
	want(t, f.run(t, append(start, "-o", "json")...), 7, "", `
{"error":{"exitCode":7,"code":"FAILED_PRECONDITION","reason":"ADDRESS_IN_USE","message":"web2: tcp://0.0.0.0:8080 is in use (EADDRINUSE), held by nginx (pid 812)","metadata":{"errno":"EADDRINUSE","fix":"sockctl start web2 --listen tcp://0.0.0.0:8081"}}}
`)
}

func TestFieldViolations(t *testing.T) {
	f := newFake(t)
	violations := []*errdetails.BadRequest_FieldViolation{
		{Field: "spec.listen[0]", Description: "no port"},
		{Field: "spec.options.x", Description: "no such option, \x1b[31mnearest is y", Reason: "OPTION_UNKNOWN"},
	}
	f.errs["CreateListener"] = refused(codes.InvalidArgument, "SPEC_INVALID", "2 fields are wrong", nil,
		&errdetails.BadRequest{FieldViolations: violations})
	start := []string{"start", "web", "--listen", "tcp://x", "--handler", "echo"}
	want(t, f.run(t, start...), 2, "", `
Error: 2 fields are wrong
  spec.listen[0]: no port
  spec.options.x: no such option, \x1b[31mnearest is y
  reason SPEC_INVALID
`)
	want(t, f.run(t, append(start, "-o", "json")...), 2, "", `
{"error":{"exitCode":2,"code":"INVALID_ARGUMENT","reason":"SPEC_INVALID","message":"2 fields are wrong","fieldViolations":[{"field":"spec.listen[0]","description":"no port"},{"field":"spec.options.x","description":"no such option, \u001b[31mnearest is y","reason":"OPTION_UNKNOWN"}]}}
`)
	f.errs["CreateListener"] = refused(codes.InvalidArgument, "SPEC_INVALID", "spec.listen[0]: no port", nil,
		&errdetails.BadRequest{FieldViolations: violations[:1]})
	want(t, f.run(t, start...), 2, "", "Error: spec.listen[0]: no port\n  reason SPEC_INVALID\n")
}

func TestNoDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	w := world{env: map[string]string{"SOCKMGR_ADDR": "unix://" + path}}
	text := "Error: no daemon answers at unix://" + path + " (connect: no such file or directory)\n" +
		"  try  sockmgr --control unix://" + path + " to start one, or --addr for one that listens elsewhere\n"
	for _, line := range []string{
		"ls", "ls a b", "start a", "stop a b", "rm a", "inspect a", "tune a b=c", "options", "conn ls", "conn inspect 1f",
		"conn close 1f 2f", "daemon info", "daemon log-level", "daemon shutdown", "wait a b --for stopped",
	} {
		t.Run(line, func(t *testing.T) { want(t, w.run(t, strings.Fields(line)...), 8, "", text) })
	}
	want(t, w.run(t, "ls", "-o", "json"), 8, "", fmt.Sprintf(`
{"error":{"exitCode":8,"code":"UNAVAILABLE","message":"no daemon answers at unix://%[1]s (connect: no such file or directory)","metadata":{"address":"unix://%[1]s","fix":"sockmgr --control unix://%[1]s to start one, or --addr for one that listens elsewhere"}}}
`, path))
}

func TestUnreachable(t *testing.T) {
	for _, tt := range []struct {
		name    string
		dialErr error
		exit    int
		want    string
	}{
		{
			"not allowed", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", fs.ErrPermission)}, 5,
			"not allowed to open unix:///s (connect: permission denied)",
		},
		{"refused", os.NewSyscallError("connect", syscall.ECONNREFUSED), 8, "no daemon answers at unix:///s (connect: connection refused)"},
		{"lost", nil, 8, "lost the daemon at unix:///s: EOF"},
		{"other", errors.New("too long"), 8, "no daemon answers at unix:///s (too long)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := unreachable("unix:///s", "EOF", tt.dialErr)
			if f.exit != tt.exit || f.message != tt.want || f.metadata["address"] != "unix:///s" {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // connects, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := world{}
	want(t, w.run(t, "ls", "--addr", path, "--timeout", "20ms"), 9, "", "Error: no answer from unix://"+path+" within 20ms\n")
}

func TestTooLarge(t *testing.T) {
	f := newFake(t)
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	got := f.run(t, "start", "web", "--listen", "tcp://:80", "--handler", "http", "--body-file", body)
	want(t, got, 7, "", "Error: the request is larger than the daemon takes, body and data included: "+
		"grpc: received message larger than max (2097210 vs. 1048576)\n")
	a := &app{client: &client{addr: "unix:///s"}}
	failure := a.explain(status.Error(codes.ResourceExhausted, "grpc: received message larger than max (99 vs. 67108864)"))
	same(t, "answer", failure.message, "the answer is larger than sockctl takes: grpc: received message larger than max (99 vs. 67108864)")
}

func TestNotKnown(t *testing.T) {
	f := newFake(t)
	f.errs["ListListeners"] = status.Error(codes.Unimplemented, "unknown method X")
	want(t, f.run(t, "ls"), 12, "", "Error: the daemon at unix://"+f.path+
		" does not know this call, it may be of another release: unknown method X\n")
}

func TestUsage(t *testing.T) {
	f := newFake(t)
	for line, text := range map[string]string{
		"xyzzy":                                "unknown command \"xyzzy\" for \"sockctl\"\n  try  sockctl --help",
		"stat web":                             "unknown command \"stat\" for \"sockctl\"\n  try  sockctl start",
		"conn":                                 "sockctl conn needs a verb\n  try  sockctl conn --help",
		"conn list":                            "unknown command \"list\" for \"sockctl conn\"\n  try  sockctl conn ls",
		"daemon shutdwn":                       "unknown command \"shutdwn\" for \"sockctl daemon\"\n  try  sockctl daemon shutdown",
		"start":                                "accepts 1 arg(s), received 0\n  try  sockctl start --help",
		"start a b":                            "accepts 1 arg(s), received 2\n  try  sockctl start --help",
		"stop":                                 "requires at least 1 arg(s), only received 0\n  try  sockctl stop --help",
		"stop web --bad":                       "unknown flag: --bad\n  try  sockctl stop --help",
		"stop web --now --drain 1s":            "only one of --now, --drain can be given\n  try  sockctl stop --help",
		"stop web --drain -1s":                 "--drain cannot be negative",
		"ls --timeout -1s":                     "--timeout cannot be negative",
		"wait web --for running --timeout -1s": "--timeout cannot be negative",
		"ls -o huh":                            "invalid argument \"huh\" for \"-o, --output\" flag: want table, wide, json, yaml or name\n  try  sockctl ls --help",
		"ls --addr tcp://x:1":                  "tcp://x:1: a daemon on another host is spoken to over TLS, with a certificate\n  try  --cert FILE --key FILE --ca FILE",
		"ls --addr localhost":                  "address \"localhost\": want unix:///path, or tcp://host:port\n  try  --addr unix:///run/sockmgr/control.sock",
		"wait web":                             "required flag(s) \"for\" not set\n  try  sockctl wait --help",
		"wait web --for walking":               "--for \"walking\": want running, drained, stopped or deleted",
		"tune web":                             "requires at least 2 arg(s), only received 1\n  try  sockctl tune --help",
		"tune web backlog":                     "option \"backlog\": want name=value",
		"tune web a=1 a=2":                     "option a is given twice",
		"tune web a=1 --scope x":               "--scope \"x\": want all, listener or connections",
		"completion":                           "accepts 1 arg(s), received 0\n  try  sockctl completion --help",
		"completion huh":                       "invalid argument \"huh\" for \"sockctl completion\"\n  try  sockctl completion --help",
		"daemon log-level a b":                 "level \"b\": want trace, debug, info, warn, error, off",
		"conn close":                           "say which: an id, --filter EXPR or --all LISTENER\n  try  sockctl conn ls",
		"conn close --all":                     "--all needs the listener whose connections to close",
		"conn close --all web":                 "--all without a terminal to ask at needs -y",
		"conn close 1f --filter x":             "give connections or --filter, not both",
		"conn close --filter=":                 "--filter cannot be empty",
	} {
		t.Run(line, func(t *testing.T) { want(t, f.run(t, strings.Fields(line)...), 2, "", "Error: "+text+"\n") })
	}
	want(t, f.run(t, "stop", ""), 2, "", "Error: a name cannot be empty\n")
	want(t, f.run(t, "stop", "-o", "json"), 2, "",
		`{"error":{"exitCode":2,"code":"INVALID_ARGUMENT","message":"requires at least 1 arg(s), only received 0","metadata":{"fix":"sockctl stop --help"}}}`+"\n")
	want(t, f.run(t, "stop", "--bad", "--output=json"), 2, "",
		`{"error":{"exitCode":2,"code":"INVALID_ARGUMENT","message":"unknown flag: --bad","metadata":{"fix":"sockctl stop --help"}}}`+"\n")
	if asked := f.requests(); asked != "" {
		t.Errorf("a wrong line asked the daemon: %s", asked)
	}
}

func TestPartDone(t *testing.T) {
	for _, tt := range []struct {
		fails []error
		done  int
		exit  int
	}{
		{nil, 1, 0},
		{[]error{notFound("a"), notFound("b")}, 0, 4},
		{[]error{notFound("a"), notFound("b")}, 1, 10},
		{[]error{notFound("a"), context.DeadlineExceeded}, 0, 1},
	} {
		var stderr bytes.Buffer
		b := &batch{a: &app{env: Env{Stderr: &stderr}}, done: tt.done}
		for _, err := range tt.fails {
			b.fail("x", err)
		}
		exit := 0
		if err := b.failure(); err != nil {
			exit = asFailure(err).exit
		}
		if exit != tt.exit {
			t.Errorf("%v and %d done is %d, want %d", tt.fails, tt.done, exit, tt.exit)
		}
	}
}

// fullDisk is a writer like a full disk.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestCannotWrite(t *testing.T) {
	var stderr bytes.Buffer
	f := newFake(t)
	exit := Run(t.Context(), Env{
		Stdout: fullDisk{}, Stderr: &stderr, Getenv: os.Getenv,
	}, []string{"ls", "--addr", f.path})
	want(t, result{exit, "", stderr.String()}, 1, "", "Error: writing the answer: no space left on device\n")
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct {
		name, flag string
		uid        int
		env        map[string]string
		want       string
	}{
		{"root", "", 0, map[string]string{"XDG_RUNTIME_DIR": "/run/user/0"}, "unix:///run/sockmgr/control.sock"},
		{"user", "", 7, map[string]string{"XDG_RUNTIME_DIR": "/run/user/7"}, "unix:///run/user/7/sockmgr/control.sock"},
		{"user without a directory", "", 7, nil, "unix:///tmp/sockmgr-7/control.sock"},
		{"environment", "", 0, map[string]string{"SOCKMGR_ADDR": "unix:///e"}, "unix:///e"},
		{"flag", "/f", 0, map[string]string{"SOCKMGR_ADDR": "unix:///e"}, "/f"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &app{addr: tt.flag, env: Env{UID: tt.uid, Getenv: func(k string) string { return tt.env[k] }}}
			same(t, "address", a.address(), tt.want)
		})
	}
	for addr, want := range map[string]string{
		"unix:///a/b": "/a/b", "unix:/a/b": "/a/b", "/a/b": "/a/b", "unix:a": "a", "unix://@x": "@x", "unix:@x": "@x",
		"tcp://127.0.0.1:1": "127.0.0.1:1", "tcp://[::1]:1": "[::1]:1", "tcp://localhost:1": "localhost:1",
		"": "", "unix:": "", "unix://": "", "tcp://h:1": "", "tcp://h": "", "tcp://:1": "", "http://h": "", "h:1": "", "a/b": "",
	} {
		a := &app{env: Env{Getenv: func(string) string { return "" }}}
		to, err := a.target(addr)
		if (err == nil) != (want != "") || err == nil && to.address != want {
			t.Errorf("%q is %q, %v", addr, to.address, err)
		}
	}
}
