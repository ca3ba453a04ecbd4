package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// ApplyListeners does what the daemon does, but for sockets. What is wrong with
// a listener is in errs, under "apply web".
func (f *fake) ApplyListeners(_ context.Context, req *pb.ApplyListenersRequest) (*pb.ApplyListenersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &pb.ApplyListenersResponse{}
	for _, asked := range req.GetListeners() {
		if err := f.errs["refuse "+asked.GetName()]; err != nil {
			return nil, err
		}
		name := listenerName(asked.GetName())
		if err := f.errs["apply "+asked.GetName()]; err != nil {
			if req.GetAtomic() {
				return nil, err
			}
			resp.Changes = append(resp.Changes, failed(name, err))
			continue
		}
		before, err := f.find(name)
		c := &pb.ListenerChange{Name: name, Action: pb.ListenerChange_ACTION_CREATED, Issues: f.issues}
		after := listener(asked.GetName())
		if err == nil {
			c.Action, after = pb.ListenerChange_ACTION_UPDATED, proto.CloneOf(before)
		} else {
			after.Spec = &pb.ListenerSpec{}
		}
		proto.Merge(after, &pb.Listener{Labels: asked.GetLabels(), Annotations: asked.GetAnnotations()})
		if listen := asked.GetSpec().GetListen(); len(listen) > 0 && !slices.Equal(listen, after.GetSpec().GetListen()) {
			after.Spec.Listen = nil
			if err == nil {
				c.Action = pb.ListenerChange_ACTION_REBOUND
			}
		} else {
			asked.GetSpec().Listen = nil
		}
		if asked.GetSpec().GetHandler() != nil {
			after.Spec.Handler = nil
		}
		proto.Merge(after, &pb.Listener{Spec: asked.GetSpec()})
		after.Manager = req.GetManager()
		c.Fields, c.Listener = compare(before, after), after
		if len(c.GetFields()) == 0 {
			c.Action = pb.ListenerChange_ACTION_UNCHANGED
		}
		resp.Changes = append(resp.Changes, c)
		if !req.GetValidateOnly() {
			f.listeners = append(slices.DeleteFunc(f.listeners, func(l *pb.Listener) bool { return l.GetName() == name }), after)
		}
	}
	f.prune(req, resp)
	return resp, nil
}

// prune is that part of ApplyListeners. The caller holds mu.
func (f *fake) prune(req *pb.ApplyListenersRequest, resp *pb.ApplyListenersResponse) {
	goes := func(l *pb.Listener) bool {
		return req.GetPrune() && l.GetManager() == req.GetManager() &&
			!slices.ContainsFunc(req.GetListeners(), func(asked *pb.Listener) bool { return listenerName(asked.GetName()) == l.GetName() })
	}
	for _, l := range f.listeners {
		if goes(l) {
			resp.Changes = append(resp.Changes, &pb.ListenerChange{Name: l.GetName(), Action: pb.ListenerChange_ACTION_DELETED})
		}
	}
	if !req.GetValidateOnly() {
		f.listeners = slices.DeleteFunc(f.listeners, goes)
	}
}

func failed(name string, err error) *pb.ListenerChange {
	st := status.Convert(err)
	issue := &pb.Issue{Message: st.Message()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			issue.Code = d.GetReason()
		case *errdetails.BadRequest:
			issue.Field = d.GetFieldViolations()[0].GetField()
		}
	}
	return &pb.ListenerChange{Name: name, Action: pb.ListenerChange_ACTION_FAILED, Error: issue}
}

func compare(before, after *pb.Listener) (changes []*pb.FieldChange) {
	fields := func(l *pb.Listener) map[string]string {
		m := map[string]string{"manager": l.GetManager(), "spec.handler": protojson.Format(l.GetSpec().GetHandler())}
		put := func(path string, v any) {
			text, err := json.Marshal(v)
			must(err)
			m[path] = string(text)
		}
		for k, v := range l.GetLabels() {
			put("labels."+k, v)
		}
		for k, v := range l.GetSpec().GetOptions() {
			put("spec.options."+k, v.AsInterface())
		}
		put("spec.listen", l.GetSpec().GetListen())
		put("spec.desiredState", word(l.GetSpec().GetDesiredState()))
		return m
	}
	was, is := fields(before), fields(after)
	paths := maps.Clone(is)
	maps.Copy(paths, was)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if was[path] != is[path] {
			changes = append(changes, &pb.FieldChange{Path: path, Before: was[path], After: is[path]})
		}
	}
	return changes
}

// document is a manifest of an echo listener.
func document(name, more string) string {
	return "apiVersion: sockmgr.v1\nkind: Listener\nname: " + name +
		"\nspec:\n  listen: [tcp://127.0.0.1:8080]\n  handler: {echo: {}}\n" + more + "---\n"
}

// file writes a manifest and returns its path.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestApply(t *testing.T) {
	f := newFake(t)
	web := listener("web")
	web.Labels = map[string]string{"tier": "edge"}
	web.Spec.Options = map[string]*structpb.Value{"backlog": structpb.NewNumberValue(128)}
	f.listeners = []*pb.Listener{web}
	path := file(t, document("new", "")+document("web", "  options: {backlog: 256, idle_timeout: 1 h}\nlabels: {tier: core}\n"))
	plan := strings.ReplaceAll(`
NAME  ACTION        CHANGES
new   would create  -
web   would update  labels.tier: edge -> core
                    manager: unset -> file:FILE
                    spec.options.backlog: 128 -> 256
                    spec.options.idle_timeout: unset -> "1 h"
`, "FILE", path)
	want(t, f.run(t, "apply", "-f", path, "--dry-run"), 0, plan, "")
	same(t, "request", f.requests(), strings.ReplaceAll(`ApplyListeners {"listeners":[`+
		`{"name":"new","spec":{"listen":["tcp://127.0.0.1:8080"],"handler":{"echo":{}}}},`+
		`{"name":"web","labels":{"tier":"core"},"spec":{"listen":["tcp://127.0.0.1:8080"],"handler":{"echo":{}},"options":{"backlog":256,"idle_timeout":"1 h"}}}],`+
		`"manager":"file:FILE","validateOnly":true}`, "FILE", path))
	want(t, f.run(t, "diff", "-f", path), 1, `
+ new
~ web  labels.tier: edge -> core
~ web  spec.options.backlog: 128 -> 256
~ web  spec.options.idle_timeout: unset -> "1 h"
`, "")
	want(t, f.run(t, "diff", "-f", path, "-o", "name"), 1, "new\nweb\n", "")
	f.issues = []*pb.Issue{{Code: "CLAMPED", Field: "spec.options.backlog", Message: "128 is the most"}}
	want(t, f.run(t, "apply", "-f", path), 0,
		strings.NewReplacer("ACTION      ", "ACTION ", "would create", "created", "would update", "updated", strings.Repeat(" ", 20), strings.Repeat(" ", 15)).Replace(plan),
		"note: new: spec.options.backlog: 128 is the most\nnote: web: spec.options.backlog: 128 is the most\n")
}

func TestApplyAgain(t *testing.T) {
	f := newFake(t)
	path := file(t, document("web", "")+document("api", ""))
	want(t, f.run(t, "apply", "-f", path, "-o", "name"), 0, "web\napi\n", "")
	want(t, f.run(t, "apply", "-f", path, "-o", "name"), 0, "", "")
	want(t, f.run(t, "apply", "-f", path), 0, "NAME  ACTION     CHANGES\nweb   unchanged  -\napi   unchanged  -\n", "")
	want(t, f.run(t, "diff", "-f", path), 0, "", "")
	want(t, f.run(t, "diff", "-f", path, "-o", "json"), 0, "{\n  \"changes\": []\n}\n", "")
	got := f.run(t, "apply", "-f", path, "-o", "json")
	if !strings.HasPrefix(got.stdout, "{\n  \"changes\": [\n    {\n      \"name\": \"listeners/web\",\n      \"action\": \"unchanged\",\n") {
		t.Errorf("%+v", got)
	}
}

func TestApplyHandler(t *testing.T) {
	f := newFake(t)
	web := listener("web")
	http := func(h *pb.HttpHandler) { web.Spec.Handler = &pb.Handler{Kind: &pb.Handler_Http{Http: h}} }
	f.listeners = []*pb.Listener{web}
	long := strings.Repeat("x", 50)
	for _, tt := range []struct {
		is    *pb.HttpHandler
		asked string
		want  string
	}{
		{&pb.HttpHandler{Body: []byte("Hello")}, "http: {body: Hi, headers: {a: b c}}", `
~ web  spec.handler.http.body: "Hello" -> "Hi"
~ web  spec.handler.http.headers.a: unset -> "b c"
`},
		{&pb.HttpHandler{Body: []byte(long + "yes")}, "http: {body: " + long + long + "}", `
~ web  spec.handler.http.body: ...xxxxxxxxxxxxxxxxxxxxyes" -> ...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
`},
		{&pb.HttpHandler{Status: 404}, "echo: {}", "~ web  spec.handler: http status=404 -> echo\n"},
	} {
		http(tt.is)
		text := strings.Replace(document("web", ""), "echo: {}", tt.asked, 1)
		want(t, f.run(t, "diff", "-f", file(t, text)), 1, tt.want, "")
	}
}

func TestApplyFails(t *testing.T) {
	f := newFake(t)
	f.listeners = []*pb.Listener{listener("web"), listener("api"), listener("dns")}
	violation := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "spec.options.backlog", Description: "x"}}}
	f.errs["apply web"] = refused(codes.InvalidArgument, "SPEC_INVALID", "spec.options.backlog: 0 is out of range", nil, violation)
	f.errs["apply api"] = refused(codes.FailedPrecondition, "MANAGER_CONFLICT", "api was applied by file:/x; change it there, or set force to take it over", nil)
	path := file(t, document("web", "  options:\n    backlog: 0\n")+document("api", "")+document("dns", ""))
	faults := strings.ReplaceAll(`
Error: FILE:8:5: web: spec.options.backlog: 0 is out of range
  reason SPEC_INVALID
Error: FILE:12:1: api was applied by file:/x
  try  sockctl apply -f FILE --force
  reason MANAGER_CONFLICT
`[1:], "FILE", path)
	want(t, f.run(t, "apply", "-f", path, "--dry-run"), 10, strings.ReplaceAll(`
NAME  ACTION        CHANGES
web   would fail    -
api   would fail    -
dns   would update  manager: unset -> file:FILE
`, "FILE", path), faults)
	// An atomic call names one; a dry run finds them all.
	want(t, f.run(t, "apply", "-f", path, "--atomic"), 1, "", faults+"note: nothing is changed: --atomic\n")
	got := f.run(t, "apply", "-f", path, "--atomic", "-o", "json")
	var one struct {
		Error struct {
			ExitCode int
			Errors   []struct{ Reason, Message string }
			Notes    []string
		}
	}
	if err := json.Unmarshal([]byte(got.stderr), &one); err != nil || one.Error.ExitCode != 1 || len(one.Error.Errors) != 2 ||
		one.Error.Errors[0].Reason == "" || !slices.Equal(one.Error.Notes, []string{"nothing is changed: --atomic"}) {
		t.Errorf("%v, %+v", err, got)
	}
	delete(f.errs, "apply api")
	want(t, f.run(t, "diff", "-f", path), 10, "", strings.SplitAfter(faults, "SPEC_INVALID\n")[0])
	path = file(t, document("web", ""))
	for _, tt := range []struct {
		err  error
		exit int
		text string
	}{
		{refused(codes.FailedPrecondition, "ADDRESS_IN_USE", "web: tcp://127.0.0.1:8080 is in use (EADDRINUSE)", nil), 7, "5:12: web: tcp://127.0.0.1:8080 is in use (EADDRINUSE)"},
		{refused(codes.FailedPrecondition, "OPTION_NEEDS_REBIND", "web: new addresses; set allow_rebind", nil), 7, "5:3: web: new addresses\n  try  sockctl apply -f " + path + " --rebind"},
		{refused(codes.Internal, "STORE_FAILED", "disk full", nil), 1, "3:1: web: disk full"},
		{refused(codes.Unknown, "NEW_REASON", "new", nil), 1, "3:1: web: new"},
	} {
		f.errs["apply web"] = tt.err
		reason := status.Convert(tt.err).Details()[0].(*errdetails.ErrorInfo).GetReason()
		stderr := "Error: " + path + ":" + tt.text + "\n  reason " + reason + "\n"
		want(t, f.run(t, "apply", "-f", path), tt.exit, "NAME  ACTION  CHANGES\nweb   failed  -\n", stderr)
		want(t, f.run(t, "diff", "-f", path), max(tt.exit, 2), "", stderr) // 1 says that they differ
	}
	f.errs["ApplyListeners"] = refused(codes.Internal, "STORE_FAILED", "disk full", nil)
	want(t, f.run(t, "diff", "-f", path), 2, "", "Error: disk full\n  reason STORE_FAILED\n")
	want(t, f.run(t, "apply", "-f", path, "--atomic", "-o", "json"), 1, "",
		`{"error":{"exitCode":1,"code":"INTERNAL","reason":"STORE_FAILED","message":"disk full"}}`+"\n")
}

// Without a document nothing is meant; --prune would remove all.
func TestApplyNothing(t *testing.T) {
	f := newFake(t)
	for _, text := range []string{"", "\n", "null\n", "---\n---\n", "# all gone\n"} {
		path := file(t, text)
		f.listeners = []*pb.Listener{listener("web")}
		f.listeners[0].Manager = "file:" + path
		stderr := "Error: -f " + path + ": there is no document in it: it is empty, or has null or comments only\n  try  sockctl rm NAME... removes listeners\n"
		want(t, f.run(t, "apply", "-f", path, "--prune", "-y"), 2, "", stderr)
		want(t, f.run(t, "apply", "-f", path), 2, "", stderr)
		want(t, f.run(t, "diff", "-f", path), 2, "", stderr)
		same(t, "requests", f.requests(), "")
	}
}

func TestApplyPrune(t *testing.T) {
	f := newFake(t)
	path := file(t, document("web", ""))
	for _, id := range []string{"web", "old", "older", "other"} {
		f.listeners = append(f.listeners, listener(id))
		f.listeners[len(f.listeners)-1].Manager = "file:" + path
	}
	f.listeners[3].Manager = "file:/other"
	const question = "--prune removes 2 listeners:\n  old\n  older\nGo on? [y/N] "
	w := f.world()
	w.terminal = true
	w.stdin = "no\n"
	want(t, w.run(t, "apply", "-f", path, "--prune"), 1, "", question+"Error: nothing is changed: the answer was not yes\n")
	want(t, f.run(t, "diff", "-f", path, "--prune"), 1, "- old\n- older\n", "")
	want(t, f.run(t, "diff", "-f", path), 0, "", "")
	want(t, w.run(t, "apply", "-f", "-", "--prune"), 2, "",
		"Error: --prune without a terminal to ask at needs -y\n  try  sockctl apply --prune --dry-run shows what goes\n")
	w.stdin = "yes\n"
	done := "NAME   ACTION     CHANGES\nweb    unchanged  -\nold    deleted    -\nolder  deleted    -\n"
	want(t, w.run(t, "apply", "-f", path, "--prune"), 0, done, question)
	want(t, w.run(t, "apply", "-f", path, "--prune"), 0, "NAME  ACTION     CHANGES\nweb   unchanged  -\n", "")
	want(t, f.run(t, "apply", "-f", path, "--prune", "-y"), 0, "NAME  ACTION     CHANGES\nweb   unchanged  -\n", "")
}

// TestApplyMany has more than the daemon reads of one request.
func TestApplyMany(t *testing.T) {
	f := newFake(t)
	var text strings.Builder
	body := strings.Repeat("x", 99_000)
	for i := range 25 {
		text.WriteString(strings.Replace(document(fmt.Sprintf("l%02d", i), ""), "echo: {}", "http: {body: "+body+"}", 1))
	}
	path := file(t, text.String())
	for _, flag := range []string{"--atomic", "--prune"} {
		want(t, f.run(t, "apply", "-f", path, "-y", flag), 7, "", "Error: -f "+path+
			": 25 listeners take 2.4MiB; the daemon reads at most 1.0MiB of one request, and with "+flag+
			" they must be in one\n  try  without "+flag+", or split them over several -f\n")
	}
	same(t, "requests", f.requests(), "")
	got := f.run(t, "apply", "-f", path, "-o", "name")
	if got.exit != 0 || strings.Count(got.stdout, "\n") != 25 || strings.Count(f.requests(), "ApplyListeners") != 3 {
		t.Errorf("%+v", got)
	}
	f.errs["apply l24"] = status.Error(codes.Unknown, "x")
	if got := f.run(t, "apply", "-f", path); got.exit != 10 || !strings.Contains(got.stderr, ":171:1: l24: x\n") {
		t.Errorf("%+v", got)
	}
	f.errs["refuse l24"] = refused(codes.Internal, "STORE_FAILED", "disk full", nil)
	got = f.run(t, "apply", "-f", path)
	if got.exit != 10 || strings.Count(got.stdout, "unchanged") != 20 {
		t.Errorf("%+v", got)
	}
	same(t, "stderr", got.stderr, "Error: 5 of 25 listeners were not reached: disk full\n  reason STORE_FAILED\n")
	if got := f.run(t, "diff", "-f", path); got.exit != 2 {
		t.Errorf("%+v", got)
	}
	path = file(t, strings.Replace(document("web", ""), "echo: {}", "http: {body: "+strings.Repeat("x", maxRequest)+"}", 1))
	want(t, f.run(t, "diff", "-f", path), 7, "", "Error: "+path+
		":3:1: web takes 1048623 bytes; the daemon reads at most 1.0MiB of one request, body and payload included\n")
}

func TestExport(t *testing.T) {
	f := newFake(t)
	web := listener("web")
	web.Labels = map[string]string{"tier": "1", "a": "b c"}
	web.Annotations = map[string]string{"note": "by hand: yes"}
	web.Manager = "file:/x"
	web.Spec.DesiredState = pb.ListenerSpec_DESIRED_STATE_STOPPED
	web.Spec.Handler = &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: []byte("<p>\n  Hello\n</p>\n"), Status: 404}}}
	web.Spec.Options = map[string]*structpb.Value{
		"unix.mode": structpb.NewStringValue("0660"), "backlog": structpb.NewNumberValue(1024), "tcp.no_delay": structpb.NewBoolValue(true),
	}
	bin := listener("bin")
	bin.Spec.Handler = &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{Payload: []byte("\r\n"), KeepOpen: true}}}
	f.listeners = []*pb.Listener{web, bin}
	const manifests = `
apiVersion: sockmgr.v1
kind: Listener
name: bin
spec:
  desiredState: running
  listen:
    - tcp://127.0.0.1:8080
  handler:
    reply:
      payload: !!binary DQo=
      keepOpen: true
---
apiVersion: sockmgr.v1
kind: Listener
name: web
labels:
  a: b c
  tier: "1"
annotations:
  note: 'by hand: yes'
spec:
  desiredState: stopped
  listen:
    - tcp://127.0.0.1:8080
  handler:
    http:
      status: 404
      body: |
        <p>
          Hello
        </p>
  options:
    backlog: 1024
    tcp.no_delay: true
    unix.mode: "0660"
`
	want(t, f.run(t, "export"), 0, manifests, "")
	want(t, f.run(t, "export", "-o", "yaml"), 0, manifests, "")
	want(t, f.run(t, "export", "-o", "name"), 0, "bin\nweb\n", "")
	want(t, f.run(t, "export", "nix", "bin"), 10, strings.Split(manifests, "---\n")[0], "Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n")
	want(t, f.run(t, "export", "bin", "-o", "json"), 0, `
{
  "listeners": [
    {
      "name": "listeners/bin",
      "spec": {
        "desiredState": "running",
        "listen": [
          "tcp://127.0.0.1:8080"
        ],
        "handler": {
          "reply": {
            "payload": "DQo=",
            "keepOpen": true
          }
        }
      }
    }
  ]
}
`, "")
	w := f.world()
	w.stdin = f.run(t, "export").stdout
	want(t, w.run(t, "diff", "-f", "-"), 0, "", "")
	want(t, w.run(t, "apply", "-f", "-", "--force"), 0,
		"NAME  ACTION   CHANGES\nbin   updated  manager: unset -> file:-\nweb   updated  manager: file:/x -> file:-\n", "")
	same(t, "exported again", f.run(t, "export").stdout, manifests)
	f.listeners = nil
	want(t, f.run(t, "export"), 0, "", "")
	// A pipe from an export that failed must not look like no difference.
	w.stdin = ""
	want(t, w.run(t, "diff", "-f", "-"), 2, "", `
Error: -f -: there is no document in it: it is empty, or has null or comments only
  try  sockctl rm NAME... removes listeners
`)
}

func TestApplyCompletion(t *testing.T) {
	f := newFake(t)
	f.listeners = []*pb.Listener{listener("web"), listener("dns")}
	for line, words := range map[string]string{
		"apply -f x _": ":4\n", "diff -f x _": ":4\n", "apply -f _": "yaml\nyml\njson\n:8\n", "export web _": "dns\n:4\n",
	} {
		args := append([]string{"__complete"}, strings.Fields(line)...)
		args[len(args)-1] = ""
		same(t, line, f.run(t, args...).stdout, words)
	}
}
