package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

const head = "apiVersion: sockmgr.v1\nkind: Listener\nname: web\n"

// read reads one file without a run around it.
func readText(text string) *manifests {
	ms := &manifests{arg: "m.yaml", byName: map[string]*manifest{}}
	ms.read("m.yaml", []byte(text))
	return ms
}

func TestManifest(t *testing.T) {
	ms := readText(`
# of Thursday
---
spec:
  options: {backlog: 1024, idle_timeout: 30s, tcp.no_delay: true, unix.mode: 0660, max_connections: null, x: 1.5, big: 9007199254740993}
  handler: &h {http: {body: "Hello, World", status: 404, headers: {X-A: b}}}
  desired_state: stopped
  listen:
  - tcp://127.0.0.1:8080
  - udp://:53
labels: {tier: edge, since: 2026-01-02}
annotations:
name: listeners/web
kind: Listener
apiVersion: sockmgr.v1
---
---
{"apiVersion":"sockmgr.v1","kind":"Listener","name":"json","spec":{"listen":["unix:\/\/\/run\/a"],
	"handler":{"reply":{"payload":"\ud83d\ude00\\ud83d","keepOpen":true}}}}
---
apiVersion: sockmgr.v1
kind: Listener
name: bin
spec: {handler: {reply: {payload: !!binary "AAEC /w=="}}}
`)
	if err := ms.failure(); err != nil {
		t.Fatal(err, ms.faults)
	}
	number, text := structpb.NewNumberValue, structpb.NewStringValue
	for i, want := range []*pb.Listener{
		{
			Name: "web", Labels: map[string]string{"tier": "edge", "since": "2026-01-02"},
			Spec: &pb.ListenerSpec{
				DesiredState: pb.ListenerSpec_DESIRED_STATE_STOPPED,
				Listen:       []string{"tcp://127.0.0.1:8080", "udp://:53"},
				Handler: &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{
					Body: []byte("Hello, World"), Status: 404, Headers: map[string]string{"X-A": "b"},
				}}},
				Options: map[string]*structpb.Value{
					"backlog": number(1024), "idle_timeout": text("30s"), "tcp.no_delay": structpb.NewBoolValue(true),
					"unix.mode": text("0660"), "max_connections": structpb.NewNullValue(), "x": number(1.5), "big": text("9007199254740993"),
				},
			},
		},
		{Name: "json", Spec: &pb.ListenerSpec{
			Listen: []string{"unix:///run/a"},
			Handler: &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{
				Payload: []byte("\U0001f600\\ud83d"), KeepOpen: true,
			}}},
		}},
		{Name: "bin", Spec: &pb.ListenerSpec{
			Handler: &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{Payload: []byte{0, 1, 2, 255}}}},
		}},
	} {
		if got := ms.all[i].listener; !proto.Equal(got, want) {
			t.Errorf("%v\nwant %v", got, want)
		}
	}
	m := ms.all[0]
	for path, want := range map[string]string{
		"name": "m.yaml:13:1", "spec.options.tcp.no_delay": "m.yaml:5:47", "spec.listen[1]": "m.yaml:10:5", "spec.listen[7]": "m.yaml:8:3",
		"spec.handler.http.headers.X-B": "m.yaml:6:58", "spec.desired_state": "m.yaml:7:3", "labels": "m.yaml:11:1", "nix": "m.yaml:13:1",
	} {
		same(t, path, m.place(path).String(), want)
	}
}

func TestManifestFaults(t *testing.T) {
	for text, want := range map[string]string{
		head + "spec:\n  handlr: {}\n":     "5:3: spec.handlr is not a field; did you mean handler?",
		head + "spec: {zzz: 1}\n":          "4:8: spec.zzz is not a field; want desiredState, listen, handler, concurrency, options, access, tls, proxyProtocol, drain or pauseMode",
		head + "metadata: {}\n":            "4:1: metadata is not a field; want apiVersion, kind, name, labels, annotations or spec",
		head + "label: {}\n":               "4:1: label is not a field; did you mean labels?",
		head + "uid: x\n":                  "4:1: uid is not for a manifest: the daemon sets it",
		head + "create_time: x\n":          "4:1: createTime is not for a manifest: the daemon sets it",
		head + "name: b\n":                 "4:1: name is given twice, first at m.yaml:3:1",
		head + "labels:\n  a: b\n  a: c\n": "6:3: labels.a is given twice, first at m.yaml:5:3",
		head + "spec:\n  desiredState: running\n  desired_state: stopped\n": "6:3: spec.desiredState is given twice, first at m.yaml:5:3",
		head + "labels: {a: 1.20}\n":                                        `4:13: labels.a is a number; want text: write "1.20"`,
		head + "labels: {a: true}\n":                                        `4:13: labels.a is true; want text: write "true"`,
		head + "labels: {a: }\n":                                            "4:13: labels.a is nothing; want text",
		head + "labels: [a]\n":                                              "4:9: labels is a list; want a mapping, name: value",
		head + "labels: {[a]: b}\n":                                         "4:10: a key of labels is a list; want text",
		head + "labels: {<<: {a: b}}\n":                                     "4:10: << is not known in a manifest: write the fields out",
		head + "spec: x\n":                                                  "4:7: spec is text; want a mapping, name: value",
		head + "spec: {listen: tcp://:80}\n":                                "4:16: spec.listen is text; want a list, such as [a, b]",
		head + "spec: {listen: [80]}\n":                                     `4:17: spec.listen[0] is a number; want text: write "80"`,
		head + "spec:\n  handler: http\n":                                   "5:12: spec.handler is text; want a mapping, name: value",
		head + "spec: {handler: {htpp: {}}}\n":                              "4:18: spec.handler.htpp is not a field; did you mean http?",
		head + "spec: {handler: {echo: {}, http: {}}}\n":                    "4:28: spec.handler is echo already; want one kind",
		head + "spec: {handler: {echo: }}\n":                                "4:24: spec.handler.echo is nothing; write {} for one without fields",
		head + "spec: {handler: {http: {status: 0200}}}\n":                  "4:33: spec.handler.http.status is 0200; want a whole number from 0 to 4294967295",
		head + "spec: {handler: {http: {status: ok}}}\n":                    "4:33: spec.handler.http.status is ok; want a whole number from 0 to 4294967295",
		head + "spec: {handler: {http: {status: 4294967296}}}\n":            "4:33: spec.handler.http.status is 4294967296; want a whole number from 0 to 4294967295",
		head + "spec: {handler: {http: {body: 7}}}\n":                       `4:31: spec.handler.http.body is a number; want text: write "7"`,
		head + "spec: {handler: {http: {body: !!binary 'x'}}}\n":            "4:31: spec.handler.http.body is !!binary and not base64: illegal base64 data at input byte 0",
		head + "spec: {handler: {reply: {keepOpen: yes}}}\n":                "4:36: spec.handler.reply.keep_open is text; want true or false",
		head + "spec: {desiredState: walking}\n":                            "4:22: spec.desired_state is walking; want running, paused or stopped",
		head + "spec: {options: {backlog: [1]}}\n":                          "4:27: spec.options.backlog is a list; want true, false, null, a number or text",
		head + "spec: {options: {backlog: .inf}}\n":                         "4:27: spec.options.backlog is .inf; want true, false, null, a number or text",
		head + "spec: {options: {backlog: !mine 1}}\n":                      "4:27: spec.options.backlog is 1; want true, false, null, a number or text",
		"kind: Listener\nname: a\n":                                         "1:1: apiVersion: sockmgr.v1 is missing",
		"apiVersion: v1\nkind: Listener\nname: a\n":                         "1:13: apiVersion is v1; want sockmgr.v1",
		"apiVersion: sockmgr.v1\nkind: List\nname: a\n":                     "2:7: kind is List; want Listener",
		"apiVersion: sockmgr.v1\nkind: Listener\n":                          "1:1: name is missing",
		"apiVersion: sockmgr.v1\nkind: Listener\nname: A b\n":               "3:7: name \"A b\" is not a name: a lower-case letter or digit, then up to 62 lower-case letters, digits, dots, underscores or dashes",
		"apiVersion: sockmgr.v1\nkind: Listener\nname: {}\n":                "3:7: name is a mapping; want text",
		"- a\n":                                  "1:1: the document is a list; want a mapping, name: value",
		"hello\n":                                "1:1: the document is text; want a mapping, name: value",
		head + "spec: {listen: [a\nlabels: {}\n": "4:1: did not find expected ',' or ']'",
		head + "\tspec: {}\n":                    "4:2: found a tab character that violates indentation",
		head + "spec: a: b\n":                    "4:1: mapping values are not allowed in this context",
		head + "spec: *no\n":                     "4:7: unknown anchor 'no' referenced",
		"a: b: c\n":                              "1:1: mapping values are not allowed in this context",
		head + "labels: {a: b\x01}\n":            "4:14: the control character U+0001 cannot stand in a manifest as it is",
		head + "labels: {a: \xff}\n":             "4:13: byte 0xff is not UTF-8",
	} {
		t.Run(text, func(t *testing.T) {
			ms := readText(text)
			var got []string
			for _, f := range ms.faults {
				got = append(got, f.at.String()+": "+f.text)
			}
			same(t, "faults", strings.Join(got, "\n"), "m.yaml:"+want)
		})
	}
}

// TestManifestFiles has a fault in each of several files.
func TestManifestFiles(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yml": head + "spec: {listen: 1}\nlabels: {a: 1}\n", "a.yaml": head, "c.json": `{"name": 1}`,
		".#a.yaml": "no", "notes.txt": "no", "d.yaml": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "e.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	want(t, f.run(t, "apply", "-f", dir), 2, "", strings.ReplaceAll(`
Error: -f DIR: 5 faults, nothing is sent
  DIR/b.yml:4:16: spec.listen is a number; want a list, such as [a, b]
  DIR/b.yml:5:13: labels.a is a number; want text: write "1"
  DIR/c.json:1:10: name is a number; want text: write "1"
  DIR/c.json:1:1: apiVersion: sockmgr.v1 is missing
  DIR/c.json:1:1: kind: Listener is missing
`[1:], "DIR", dir))
	for _, name := range []string{"b.yml", "c.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(head), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want(t, f.run(t, "diff", "-f", dir, "-o", "json"), 2, "", strings.ReplaceAll(
		`{"error":{"exitCode":2,"code":"INVALID_ARGUMENT","message":"-f DIR: 2 faults, nothing is sent","fieldViolations":[`+
			`{"field":"DIR/b.yml:3:1","description":"name web is given twice, first at DIR/a.yaml:3:1"},`+
			`{"field":"DIR/c.json:3:1","description":"name web is given twice, first at DIR/a.yaml:3:1"}]}}`+"\n", "DIR", dir))
	empty := t.TempDir()
	for args, text := range map[string]string{
		"apply -f " + empty:        "-f " + empty + ": no *.yaml, *.yml or *.json is in this directory",
		"apply -f " + empty + "/x": "-f: stat " + empty + "/x: no such file or directory",
		"diff -f a -f b":           "-f can be given once: what it names owns the listeners\n  try  -f DIR for several files",
		"apply":                    "required flag(s) \"file\" not set\n  try  sockctl apply --help",
		"apply -f x y":             "unknown command \"y\" for \"sockctl apply\"\n  try  sockctl apply --help",
		"apply -f x --prune":       "--prune without a terminal to ask at needs -y\n  try  sockctl apply --prune --dry-run shows what goes",
	} {
		want(t, f.run(t, strings.Fields(args)...), 2, "", "Error: "+text+"\n")
	}
	if asked := f.requests(); asked != "" {
		t.Errorf("the daemon was asked: %s", asked)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"listen", "handler", "options", "desiredState"}
	for word, want := range map[string]string{
		"lisen": "listen", "Handler": "handler", "option": "options", "desired-state": "desiredState", "desiredstate": "desiredState",
		"x": "", "": "", "status": "", strings.Repeat("listen", 10): "",
	} {
		same(t, word, nearest(word, names), want)
	}
}

// TestReasonCodes holds the table to the comments of errors.proto.
func TestReasonCodes(t *testing.T) {
	text, err := os.ReadFile("../../../proto/sockmgr/v1/errors.proto")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	comment := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if words, ok := strings.CutPrefix(line, "// "); ok {
			comment += words
			continue
		}
		reason, _, found := strings.Cut(strings.TrimPrefix(line, "ERROR_REASON_"), " = ")
		if found && reason != "UNSPECIFIED" && strings.HasPrefix(line, "ERROR_REASON_") {
			name, _, _ := strings.Cut(comment, ":")
			var c codes.Code
			if err := c.UnmarshalJSON([]byte(`"` + name + `"`)); err != nil || reasonCodes[reason] != c {
				t.Errorf("%s is %v, errors.proto says %s: %v", reason, reasonCodes[reason], name, err)
			}
			n++
		}
		comment = ""
	}
	if n != len(reasonCodes) {
		t.Errorf("%d reasons in the table, %d in errors.proto", len(reasonCodes), n)
	}
}

// FuzzManifest reads anything without harm; what it reads it writes so that it
// reads the same.
func FuzzManifest(f *testing.F) {
	for _, s := range []string{
		head, head + "spec: {listen: [a], handler: {http: {body: !!binary AAE=, headers: {a: b}}}, options: {a: 1, b: -0.0, c: 0660, d: 1e3, e: ~}}\n",
		head + "spec: {handler: {reply: {payload: \"\\n x\\ty\\0\\u2028\\uFEFF\"}}, desiredState: stopped}\n---\n" + head,
		head + "labels: {a: &a x, b: *a, '<<': \"\\x85\", \"\": \" \\n\"}\n", `{"apiVersion":"sockmgr.v1","kind":"Listener","name":"\ud83d\ude00\/"}`,
		"&a [*a]", "? a\n: - b", "a: |2-\n   x\n\n", "--- !!map\n%YAML 1.1\n",
		head + "spec:\n  handler:\n    http:\n      body: |+\n        <p>\n          x\n\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ms := readText(s)
		for _, one := range ms.faults {
			if one.at.line < 1 || one.at.column < 1 || one.text == "" {
				t.Errorf("fault %+v", one)
			}
		}
		var b bytes.Buffer
		if err := writeManifests(&b, ms.listeners()); err != nil {
			t.Fatal(err)
		}
		again := readText(b.String())
		if len(again.faults) > 0 || len(again.all) != len(ms.all) {
			t.Fatalf("%v in\n%s", again.faults, b.String())
		}
		for i, m := range ms.all {
			if _, err := proto.Marshal(m.listener); err != nil {
				t.Fatal(err)
			}
			if got := again.all[i].listener; fmt.Sprint(sparse(got)) != fmt.Sprint(sparse(m.listener)) {
				t.Fatalf("%v\nbecomes %v\nby\n%s", m.listener, got, b.String())
			}
		}
	})
}

// sparse is what counts of a listener: {} and nothing are the same for it.
func sparse(l *pb.Listener) string {
	var b bytes.Buffer
	writeJSON(&b, messageTree(l.ProtoReflect(), true), "")
	return strings.ReplaceAll(b.String(), `,"spec":{}`, "")
}

// FuzzExport writes any bytes and text so that they are read back the same.
func FuzzExport(f *testing.F) {
	for _, s := range []string{
		"", "Hello, World", "a\n", "a\n\n", "\na", " a\nb", "\ta\nb", "a\n b \n", "a\r\nb", "\x00\xff", "null", "0660", "<<", "---\na", "a: b\n# c\n", "\u2028a\n", "\ufeff\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := strings.ToValidUTF8(s, "?")
		l := &pb.Listener{
			Name: "web", Labels: map[string]string{text: text},
			Spec: &pb.ListenerSpec{
				Listen:  []string{text},
				Handler: &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: []byte(s), Headers: map[string]string{text: text}}}},
				Options: map[string]*structpb.Value{text: structpb.NewStringValue(text)},
			},
		}
		var b bytes.Buffer
		if err := writeManifests(&b, []*pb.Listener{l}); err != nil {
			t.Fatal(err)
		}
		ms := readText(b.String())
		if len(ms.faults) > 0 || !proto.Equal(ms.all[0].listener, l) {
			t.Fatalf("%q is written as\n%s\nread as %v, %v", s, b.String(), ms.all, ms.faults)
		}
	})
}
