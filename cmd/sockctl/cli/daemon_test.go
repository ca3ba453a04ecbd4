package cli

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func TestDaemonInfo(t *testing.T) {
	f := inhabited(t)
	want(t, f.run(t, "daemon", "info"), 0, `
sockmgr 1.0.0
  API               sockmgr.v1
  control           unix:///s
  pid               12
  started           2026-01-02T14:04:05Z (1h ago)
  instance          abc
  poller            epoll
  open files limit  1024
`, "")
	want(t, f.run(t, "daemon", "info", "-o", "name"), 0, "abc\n", "")
	got := f.run(t, "daemon", "info", "-o", "json")
	if !strings.HasPrefix(got.stdout, "{\n  \"version\": \"1.0.0\",\n  \"commit\": \"\",\n") || !strings.Contains(got.stdout, "\n  \"openFilesLimit\": 1024,\n") {
		t.Error(got.stdout)
	}
}

func TestLogLevel(t *testing.T) {
	f := inhabited(t)
	want(t, f.run(t, "daemon", "log-level"), 0, `
LOGGER        LEVEL
sockmgr       info
sockmgr.loop  warn
`, "")
	want(t, f.run(t, "daemon", "log-level", "sockmgr.loop"), 0, "LOGGER        LEVEL\nsockmgr.loop  warn\n", "")
	want(t, f.run(t, "daemon", "log-level", "huh"), 4, "",
		"Error: huh is neither a logger nor a level\n  try  sockctl daemon log-level; levels are trace, debug, info, warn, error, off\n")
	f.requests()
	want(t, f.run(t, "daemon", "log-level", "sockmgr.loop", "off", "-o", "json"), 0, `
{
  "levels": {
    "sockmgr": "info",
    "sockmgr.loop": "off"
  }
}
`, "")
	want(t, f.run(t, "daemon", "log-level", "debug", "-o", "yaml"), 0, "levels:\n  sockmgr: debug\n  sockmgr.loop: debug\n", "")
	same(t, "requests", f.requests(), `
SetLogLevel {"logger":"sockmgr.loop","level":"off"}
SetLogLevel {"level":"debug"}`)
}

func TestShutdown(t *testing.T) {
	f := inhabited(t)
	want(t, f.run(t, "daemon", "shutdown", "--drain", "3s"), 0, "sockmgr (pid 12) ended\n", "")
	asked := strings.Split(f.requests(), "\n")
	same(t, "second request", asked[1], `ShutdownDaemon {"drainTimeout":"3s","instanceId":"abc"}`)
}

func TestShutdownOfAnother(t *testing.T) {
	f := inhabited(t)
	f.shutdown = func() {
		f.change(func() { f.info = &pb.DaemonInfo{InstanceId: "next"} }) // a supervisor has started it again
	}
	want(t, f.run(t, "daemon", "shutdown", "-o", "name"), 0, "abc\n", "")
}

func TestShutdownTakesTooLong(t *testing.T) {
	f := inhabited(t)
	f.shutdown = func() {}
	want(t, f.run(t, "daemon", "shutdown", "--timeout", "500ms"), 9, "",
		"Error: time ran out while sockmgr (pid 12) drains\n  try  sockctl daemon shutdown --now\n")
}

func TestVersion(t *testing.T) {
	f := inhabited(t)
	want(t, f.run(t, "version"), 0, "sockctl  devel\nsockmgr  1.0.0 (unix://"+f.path+")\n", "")
	got := f.run(t, "version", "-o", "json")
	if !strings.HasPrefix(got.stdout, `{
  "client": {
    "version": "devel",
    "goVersion": "`+runtime.Version()+`"
  },
  "daemon": {
    "version": "1.0.0",
`) {
		t.Error(got.stdout)
	}
	path := filepath.Join(t.TempDir(), "s")
	want(t, world{}.run(t, "version", "--addr", path), 0, "sockctl  devel\nsockmgr  no answer (unix://"+path+")\n", "")
	want(t, world{}.run(t, "version", "--addr", path, "-o", "json"), 0,
		"{\n  \"client\": {\n    \"version\": \"devel\",\n    \"goVersion\": \""+runtime.Version()+"\"\n  }\n}\n", "")
}

func TestCompletion(t *testing.T) {
	f := inhabited(t)
	for line, words := range map[string]string{
		"stop _":               "web\ndns\n:4\n",
		"stop web _":           "dns\n:4\n",
		"start web _":          ":4\n",
		"inspect _":            "web\ndns\n2a\ttcp://10.0.0.7:51344\n:4\n",
		"conn close _":         "2a\ttcp://10.0.0.7:51344\n:4\n",
		"conn close --all _":   "web\ndns\n:4\n",
		"tune web _":           "backlog=\tMost that wait.\ntcp.no_delay=\tSend at once.\ntcp.no_delay=true\ntcp.no_delay=false\n:6\n",
		"start x --option _":   "backlog=\tMost that wait.\ntcp.no_delay=\tSend at once.\ntcp.no_delay=true\ntcp.no_delay=false\n:6\n",
		"start x --handler _":  "chargen\ndaytime\ndiscard\necho\nexec\nforward\nhandoff\nhttp\nremote\nreply\ntime\n:4\n",
		"options _":            "backlog\ntcp.no_delay\nweb\ndns\n:4\n",
		"daemon log-level _":   "sockmgr\nsockmgr.loop\ntrace\ndebug\ninfo\nwarn\nerror\noff\n:4\n",
		"daemon log-level x _": "trace\ndebug\ninfo\nwarn\nerror\noff\n:4\n",
		"wait web --for _":     "running\ndrained\nstopped\ndeleted\n:4\n",
		"ls -o _":              "table\nwide\njson\nyaml\nname\n:4\n",
		"completion _":         "bash\nzsh\nfish\npowershell\n:4\n",
	} {
		t.Run(line, func(t *testing.T) {
			args := append([]string{"__complete"}, strings.Fields(line)...)
			args[len(args)-1] = ""
			got := f.run(t, args...)
			if got.exit != 0 {
				t.Errorf("%+v", got)
			}
			same(t, "completion", got.stdout, words)
		})
	}
	none := world{}.run(t, "__complete", "--addr", filepath.Join(t.TempDir(), "s"), "stop", "")
	if none.exit != 0 || none.stdout != ":4\n" || strings.Contains(none.stderr, "daemon") {
		t.Errorf("without a daemon: %+v", none)
	}
	for shell, word := range map[string]string{"bash": "__start_sockctl", "zsh": "#compdef sockctl", "fish": "complete -c sockctl", "powershell": "Register-ArgumentCompleter"} {
		if got := f.run(t, "completion", shell); got.exit != 0 || !strings.Contains(got.stdout, word) {
			t.Errorf("%s: %d", shell, got.exit)
		}
	}
}

// TestMute is a daemon that listens and never answers: a prompt must not hang.
func TestMute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want(t, world{}.run(t, "version", "--addr", path), 0, "sockctl  devel\nsockmgr  no answer (unix://"+path+")\n", "")
	got := world{}.run(t, "__complete", "--addr", path, "stop", "")
	same(t, "completion", got.stdout, ":4\n")
}

// TestHelp holds every command to having a short text, and long lines out.
func TestHelp(t *testing.T) {
	a := &app{env: Env{Getenv: os.Getenv}}
	for _, c := range a.rootCommand().Commands() {
		if c.Short == "" || len(c.Short) > 72 {
			t.Errorf("%s: %q", c.Name(), c.Short)
		}
		for line := range strings.Lines(c.Long) {
			if len(line) > 120 {
				t.Errorf("%s: %q", c.Name(), line)
			}
		}
	}
	want(t, world{}.run(t, "help", "rm"), 0, `
Drain and remove listeners

Usage:
  sockctl rm NAME... [flags]

Examples:
  sockctl rm web api --now

Flags:
  -h, --help             help for rm
      --ignore-missing   one that is not there is no error
      --no-wait          return while connections finish
      --now              close open connections at once

Global Flags:
      --addr string        control address of the daemon (default $SOCKMGR_ADDR, else where a local sockmgr listens)
      --ca file            CA file that the daemon's certificate must chain to (default $SOCKMGR_CA, else the system's)
      --cert file          certificate file for a daemon at tcp://host:port (default $SOCKMGR_CERT)
      --key file           key file of --cert (default $SOCKMGR_KEY, else the file of --cert)
  -o, --output FORMAT      table, wide, json, yaml or name (default table)
      --timeout duration   longest wait for one answer; 0 waits for ever (default 30s)
`, "")
}
