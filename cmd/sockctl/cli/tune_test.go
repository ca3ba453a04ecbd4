package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func TestTune(t *testing.T) {
	f := inhabited(t)
	number := structpb.NewNumberValue
	clamped := &pb.OptionResult{
		Target: "listeners/web", Name: "backlog", Requested: number(9000), Previous: number(1024), Effective: number(4096),
		Outcome: pb.OptionResult_OUTCOME_CLAMPED, Message: "net.core.somaxconn is 4096",
	}
	failed := &pb.OptionResult{
		Target: "connections/2a", Name: "mark", Requested: number(1), Outcome: pb.OptionResult_OUTCOME_FAILED,
		Errno: "EPERM", Message: "needs CAP_NET_ADMIN", Connections: 3, Reason: "CAPABILITY_MISSING",
	}
	rebind := &pb.OptionResult{Target: "listeners/web", Name: "x", Requested: structpb.NewNullValue(), Outcome: pb.OptionResult_OUTCOME_NEEDS_REBIND, Reason: "OPTION_NEEDS_REBIND"}

	f.results = []*pb.OptionResult{clamped}
	want(t, f.run(t, "tune", "web", "backlog=9000", "idle_timeout=1m", "x=null"), 0, `
OPTION   TARGET  ASKED  WAS   NOW   OUTCOME
backlog  web     9000   1024  4096  clamped
`, "note: backlog: net.core.somaxconn is 4096\n")
	same(t, "requests", f.requests(),
		`SetOptions {"target":"listeners/web","options":{"backlog":9000,"idle_timeout":"1m","x":null},"scope":"all"}`)

	f.results = []*pb.OptionResult{clamped, failed, rebind}
	want(t, f.run(t, "tune", "web", "a=1", "--scope", "connections"), 10, `
OPTION   TARGET         ASKED  WAS   NOW   OUTCOME
backlog  web            9000   1024  4096  clamped
mark     3 connections  1      -     -     failed
x        web            null   -     -     needs_rebind
`, `
note: backlog: net.core.somaxconn is 4096
note: mark: needs CAP_NET_ADMIN (EPERM)
Error: web: part is set, part is not: mark, x
`[1:])
	same(t, "requests", f.requests(), `SetOptions {"target":"listeners/web","options":{"a":1},"scope":"open_connections"}`)

	f.results = []*pb.OptionResult{failed}
	want(t, f.run(t, "tune", "web", "mark=1", "-o", "json"), 5, `
{
  "results": [
    {
      "target": "connections/2a",
      "name": "mark",
      "requested": 1,
      "outcome": "failed",
      "errno": "EPERM",
      "message": "needs CAP_NET_ADMIN",
      "connections": 3,
      "reason": "CAPABILITY_MISSING"
    }
  ]
}
`, `{"error":{"exitCode":5,"code":"PERMISSION_DENIED","reason":"CAPABILITY_MISSING","message":"web: not set: mark","metadata":{"errno":"EPERM","option":"mark"}}}`+"\n")

	f.results = []*pb.OptionResult{failed}
	want(t, f.run(t, "tune", "web", "mark=1", "-o", "name"), 5, "mark\n", `
note: mark: needs CAP_NET_ADMIN (EPERM)
Error: web: not set: mark
  reason CAPABILITY_MISSING
`[1:])
}

// What failed in several ways says each of them; what is common is above.
func TestTuneSeveralFail(t *testing.T) {
	f := inhabited(t)
	failed := func(name, reason string) *pb.OptionResult {
		return &pb.OptionResult{Target: "listeners/web", Name: name, Outcome: pb.OptionResult_OUTCOME_FAILED, Message: "no", Reason: reason}
	}
	one, other := failed("mark", "CAPABILITY_MISSING"), failed("so:1:9999", "OPTION_UNSUPPORTED")
	done := &pb.OptionResult{Target: "listeners/web", Name: "backlog", Outcome: pb.OptionResult_OUTCOME_APPLIED}
	both := `"errors":[{"exitCode":5,"code":"PERMISSION_DENIED","reason":"CAPABILITY_MISSING","message":"mark: no","metadata":{"option":"mark","target":"listeners/web"}},`
	unknown := `{"exitCode":12,"code":"UNIMPLEMENTED","reason":"OPTION_UNSUPPORTED","message":"so:1:9999: no","metadata":{"option":"so:1:9999","target":"listeners/web"}}]`
	for _, c := range []struct {
		results []*pb.OptionResult
		exit    int
		stderr  string
	}{
		{[]*pb.OptionResult{other}, 12, `{"error":{"exitCode":12,"code":"UNIMPLEMENTED","reason":"OPTION_UNSUPPORTED","message":"web: not set: so:1:9999","metadata":{"option":"so:1:9999"}}}`},
		{[]*pb.OptionResult{one, other}, 1, `{"error":{"exitCode":1,"code":"UNKNOWN","message":"web: not set: mark, so:1:9999",` + both + unknown + `}}`},
		{[]*pb.OptionResult{done, other}, 10, `{"error":{"exitCode":10,"code":"UNIMPLEMENTED","reason":"OPTION_UNSUPPORTED","message":"web: part is set, part is not: so:1:9999","metadata":{"option":"so:1:9999"}}}`},
		{[]*pb.OptionResult{done, one, other}, 10, `{"error":{"exitCode":10,"code":"UNKNOWN","message":"web: part is set, part is not: mark, so:1:9999",` + both + unknown + `}}`},
	} {
		f.results = c.results
		got := f.run(t, "tune", "web", "a=1", "-o", "json")
		if got.exit != c.exit {
			t.Errorf("exit %d, want %d", got.exit, c.exit)
		}
		same(t, "stderr", got.stderr, c.stderr+"\n")
	}
}

func TestTuneTry(t *testing.T) {
	f := inhabited(t)
	f.results = []*pb.OptionResult{{
		Target: "listeners/web", Name: "backlog", Requested: structpb.NewNumberValue(5), Previous: structpb.NewNumberValue(9),
		Effective: structpb.NewNumberValue(5), Outcome: pb.OptionResult_OUTCOME_APPLIED,
	}}
	at := now.Add(time.Minute).UTC().Format(time.RFC3339)
	want(t, f.run(t, "tune", "web", "backlog=5", "--try", "60s"), 0, `
OPTION   TARGET  ASKED  WAS  NOW  OUTCOME
backlog  web     5      9    5    applied
`, `
note: the old values come back at `[1:]+at+`, in 1m0s, unless they are confirmed
  keep  sockctl tune --confirm 1a2b3c4d
  undo  sockctl tune --revert 1a2b3c4d
`)
	same(t, "requests", f.requests(),
		`SetOptions {"target":"listeners/web","options":{"backlog":5},"scope":"all","revertAfter":"60s"}`)
	got := f.run(t, "tune", "web", "backlog=5", "--try", "60s", "-o", "json")
	if got.exit != 0 || got.stderr != "" || !strings.HasSuffix(got.stdout, `
  ],
  "changeId": "1a2b3c4d",
  "revertTime": "`+at+`"
}
`) {
		t.Errorf("%+v", got)
	}
	f.requests()
	want(t, f.run(t, "tune", "--confirm", "1a2b3c4d"), 0, "1a2b3c4d kept\n", "")
	want(t, f.run(t, "tune", "--revert", "1a2b3c4d"), 0, "1a2b3c4d set back\n", "")
	same(t, "requests", f.requests(), `ConfirmOptions {"changeId":"1a2b3c4d"}`+"\n"+`ConfirmOptions {"changeId":"1a2b3c4d","revert":true}`)
	for _, args := range [][]string{
		{"--confirm", "1a2b3c4d", "web", "a=1"},
		{"--confirm", ""},
		{"--confirm", "a", "--revert", "b"},
		{"web", "a=1", "--try", "2h"},
		{"web", "a=1", "--try", "0s"},
		{"web"},
		{"--revert", "a", "--scope", "all"},
	} {
		if got := f.run(t, append([]string{"tune"}, args...)...); got.exit != 2 {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if got := f.run(t, "tune", "--revert", "nix"); got.exit != 4 {
		t.Errorf("%+v", got)
	}
}

func TestTuneTargets(t *testing.T) {
	f := inhabited(t)
	for id, target := range map[string]string{
		"listeners/web": "listeners/web", "connections/2a": "connections/2a", "2a": "connections/2a", "10.0.0.7:51344": "connections/2a",
	} {
		f.requests()
		if got := f.run(t, "tune", id, "a=1"); got.exit != 0 {
			t.Errorf("%s: %+v", id, got)
		}
		asked := strings.Split(f.requests(), "\n")
		same(t, "last request", asked[len(asked)-1], `SetOptions {"target":"`+target+`","options":{"a":1},"scope":"all"}`)
	}
	want(t, f.run(t, "tune", "nix", "a=1"), 4, "", "Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n")
	want(t, f.run(t, "tune", "ff", "a=1"), 4, "", "Error: no listener or connection is called ff\n  try  sockctl ls; sockctl conn ls\n")
}

func TestOptions(t *testing.T) {
	f := inhabited(t)
	want(t, f.run(t, "options"), 0, `
NAME          TYPE  EFFECT           DEFAULT  CLAMPED BY               SUMMARY
backlog       int   live             4096     net.core.somaxconn=4096  Most that wait.
tcp.no_delay  bool  new_connections  -        -                        Send at once.
`, "")
	want(t, f.run(t, "options", "-o", "wide"), 0, `
NAME          TYPE  EFFECT           DEFAULT  CLAMPED BY               KERNEL NAME  NETWORKS  RANGE  INHERITED  CAPABILITY  SUPPORTED  SUMMARY
backlog       int   live             4096     net.core.somaxconn=4096  -            -         1..    no         -           yes        Most that wait.
tcp.no_delay  bool  new_connections  -        -                        TCP_NODELAY  tcp       ..1    yes        CAP_NONE    yes        Send at once.
`, "")
	want(t, f.run(t, "options", "tcp.no_delay"), 0, `
option tcp.no_delay
  summary         Send at once.
  type            bool
  takes effect    new_connections
  default         -
  range           ..1
  networks        tcp
  kernel          TCP_NODELAY (level 6, option 1)
  capability      CAP_NONE
  inherited       yes
  supported here  yes
`, "")
	want(t, f.run(t, "options", "web"), 0, `
NAME     IN FORCE  DEFAULT  EFFECT  SUMMARY
backlog  4096      4096     live    Most that wait.
`, "")
	want(t, f.run(t, "options", "-o", "name"), 0, "backlog\ntcp.no_delay\n", "")
	want(t, f.run(t, "options", "huh"), 4, "", "Error: no option or listener is called huh\n  try  sockctl options; sockctl ls\n")
	want(t, f.run(t, "options", "web", "-o", "json"), 0, `
{
  "options": [
    {
      "name": "backlog",
      "kernelName": "",
      "level": 0,
      "option": 0,
      "type": "int",
      "networks": [],
      "effect": "live",
      "inherited": false,
      "capability": "",
      "clampedBy": "net.core.somaxconn",
      "clampValue": 4096,
      "min": 1,
      "choices": [],
      "summary": "Most that wait.",
      "supported": true,
      "defaultValue": 4096,
      "inForce": 4096
    }
  ]
}
`, "")
}
