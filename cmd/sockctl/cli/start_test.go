package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func TestStartMakes(t *testing.T) {
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string // listener of the request
	}{
		{
			"echo with options and labels",
			[]string{"--handler", "echo", "--option", "backlog=1024", "--option", "idle_timeout=30s", "--label", "tier=edge"},
			`"labels":{"tier":"edge"},"spec":{"desiredState":"running","listen":["tcp://:80"],"handler":{"echo":{}},` +
				`"options":{"backlog":1024,"idle_timeout":"30s"}}`,
		},
		{
			"two addresses",
			[]string{"--listen", "udp://:53", "--handler", "discard"},
			`"spec":{"desiredState":"running","listen":["tcp://:80","udp://:53"],"handler":{"discard":{}}}`,
		},
		{"daytime", []string{"--handler", "daytime"}, `"spec":{"desiredState":"running","listen":["tcp://:80"],"handler":{"daytime":{}}}`},
		{"time", []string{"--handler", "time"}, `"spec":{"desiredState":"running","listen":["tcp://:80"],"handler":{"time":{}}}`},
		{"chargen", []string{"--handler", "chargen"}, `"spec":{"desiredState":"running","listen":["tcp://:80"],"handler":{"chargen":{}}}`},
		{
			"reply",
			[]string{"--handler", "reply", "--data", "hi", "--keep-open"},
			`"spec":{"desiredState":"running","listen":["tcp://:80"],"handler":{"reply":{"payload":"aGk=","keepOpen":true}}}`,
		},
		{
			"http",
			[]string{"--handler", "http", "--status", "404", "--header", "X-A:  b: c ", "--header", "x-empty:", "--body", "no"},
			`"spec":{"desiredState":"running","listen":["tcp://:80"],"handler":{"http":{"status":404,"headers":{"X-A":"b: c","x-empty":""},"body":"bm8="}}}`,
		},
		{
			"http with a file",
			[]string{"--handler", "http", "--body-file", body},
			`"spec":{"desiredState":"running","listen":["tcp://:80"],"handler":{"http":{"body":"ZmlsZQ=="}}}`,
		},
		{
			"http with standard input",
			[]string{"--handler", "http", "--body-file", "-"},
			`"spec":{"desiredState":"running","listen":["tcp://:80"],"handler":{"http":{"body":"c3RkaW4="}}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			w := f.world()
			w.stdin = "stdin"
			got := w.run(t, append([]string{"start", "listeners/web", "--listen", "tcp://:80"}, tt.args...)...)
			want(t, got, 0, "web running tcp://127.0.0.1:8080\n", "")
			same(t, "request", f.requests(), `CreateListener {"listenerId":"web","listener":{"name":"listeners/web",`+tt.want+`}}`)
		})
	}
}

func TestStartWrongFlags(t *testing.T) {
	f := newFake(t)
	for line, text := range map[string]string{
		"--handler huh":                            "--handler \"huh\": want chargen, daytime, discard, echo, exec, forward, handoff, http, remote, reply, time",
		"--handler=":                               "--handler cannot be empty: want chargen, daytime, discard, echo, exec, forward, handoff, http, remote, reply, time",
		"--data x":                                 "--data goes with --handler reply",
		"--handler echo --body x":                  "--body goes with --handler http",
		"--handler http --keep-open":               "--keep-open goes with --handler reply",
		"--handler http --header x":                "--header \"x\": want 'name: value'",
		"--handler http --header a:1 --header a:2": "--header a is given twice",
		"--handler http --body-file /no/such":      "--body-file: open /no/such: no such file or directory",
		"--handler echo --option x":                "--option \"x\": want name=value",
		"--handler echo --label =x":                "--label \"=x\": want name=value",
		"--handler http --body x --body-file y":    "only one of --body, --body-file can be given\n  try  sockctl start --help",
		"":                                         "web is not there, and --handler is required to make it: want chargen, daytime, discard, echo, exec, forward, handoff, http, remote, reply, time",
	} {
		t.Run(line, func(t *testing.T) {
			args := append([]string{"start", "web", "--listen", "tcp://:80"}, strings.Fields(line)...)
			want(t, f.run(t, args...), 2, "", "Error: "+text+"\n")
		})
	}
}

func TestStartAgain(t *testing.T) {
	f := newFake(t)
	l := listener("web")
	l.Labels = map[string]string{"tier": "edge"}
	l.Spec.Options = map[string]*structpb.Value{"backlog": structpb.NewNumberValue(1024), "x": structpb.NewNumberValue(1)}
	f.listeners = append(f.listeners, l)
	const running = "web running tcp://127.0.0.1:8080\n"
	made := "--listen tcp://127.0.0.1:8080 --handler echo "
	for _, line := range []string{
		"", made, made + "--option backlog=1024 --label tier=edge", "--listen tcp://127.0.0.1:8080", "--handler echo", "--option x=1",
	} {
		t.Run(line, func(t *testing.T) {
			want(t, f.run(t, append([]string{"start", "web"}, strings.Fields(line)...)...), 0, running, "")
		})
	}
	const remove = "  try  sockctl rm web, then start it again\n"
	for line, text := range map[string]string{
		made + "--listen tcp://:1":                               "spec.listen)\n" + remove,
		"--listen tcp://:1":                                      "spec.listen)\n" + remove,
		made + "--label tier=x":                                  "labels.tier)\n" + remove,
		"--label new=":                                           "labels.new)\n" + remove,
		made + "--option backlog=7":                              "spec.options.backlog)\n  try  sockctl tune web backlog=7\n",
		"--option backlog=7 --option a=":                         "spec.options.a, spec.options.backlog)\n  try  sockctl tune web a=\"\" backlog=7\n",
		"--listen tcp://:1 --handler discard --option backlog=7": "spec.handler, spec.listen, spec.options.backlog)\n" + remove,
	} {
		t.Run(line, func(t *testing.T) {
			want(t, f.run(t, append([]string{"start", "web"}, strings.Fields(line)...)...), 6, "",
				"Error: web exists with another definition (differs in "+text+"  reason LISTENER_ALREADY_EXISTS\n")
		})
	}
	f.requests()
	f.run(t, "start", "web", "--listen", "tcp://:1", "--handler", "echo")
	same(t, "requests", f.requests(), `
CreateListener {"listenerId":"web","listener":{"name":"listeners/web","spec":{"desiredState":"running","listen":["tcp://:1"],"handler":{"echo":{}}}}}
GetListener {"name":"listeners/web","view":"basic"}
UpdateListener {"listener":{"name":"listeners/web","spec":{"desiredState":"running","listen":["tcp://:1"],"handler":{"echo":{}}}},"updateMask":"spec.handler,spec.listen","allowRebind":true,"validateOnly":true}`)
}

func TestStartMissing(t *testing.T) {
	f := newFake(t)
	const text = `
Error: no listener is called nix
  try  sockctl start nix --listen tcp://127.0.0.1:8080 --handler echo
  reason LISTENER_NOT_FOUND
`
	want(t, f.run(t, "start", "nix"), 4, "", text)
	want(t, f.run(t, "start", "nix", "--handler", "echo"), 4, "", text)
}

func TestStartPrints(t *testing.T) {
	f := newFake(t)
	f.issues = []*pb.Issue{{Code: "CLAMPED", Field: "spec.options.backlog", Message: "4096 is the most"}, {Message: "x"}}
	args := []string{"start", "web", "--listen", "tcp://:80", "--handler", "echo"}
	notes := "note: spec.options.backlog: 4096 is the most\nnote: x\n"
	want(t, f.run(t, append(args, "-o", "name")...), 0, "web\n", notes)
	got := f.run(t, "start", "web", "-o", "json")
	if !strings.HasPrefix(got.stdout, "{\n  \"name\": \"listeners/web\",\n") {
		t.Error(got.stdout)
	}
	f.listeners[0].Status.State = pb.ListenerStatus_STATE_FAILED
	f.listeners[0].Status.Message = "tcp://:80 is in use"
	want(t, f.run(t, "start", "web"), 7, "", "Error: web is kept but cannot run: tcp://:80 is in use\n")
}
