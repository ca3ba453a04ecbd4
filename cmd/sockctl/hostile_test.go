//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// hostile is what a terminal, or who reads a log by lines, would take for more
// than text: OSC and CSI of both forms, ends of lines, marks that turn the
// direction, NUL, DEL, what is no UTF-8, and what no font shows.
const hostile = "\x1b]0;owned\x07\x1b[2J\u009b31m\r\nFORGED=1 \u202etxt.exe\u2028\v\f\x7f\xff\xc3(\x00\U000e0041\u200b end"

// bidi is what is left of it where control characters are refused.
const bidi = "\u202etxt.exe\u200b\U000e0041 end"

// asText is that as a string of the API, which must be UTF-8.
var asText = strings.ToValidUTF8(hostile, "\ufffd")

// What anybody sends, wherever it may be sent, comes out of the daemon's log, in
// both forms, and of sockctl as text: no escape sequence, and no line that is not
// the daemon's.
func TestHostileBytes(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "h") //nolint:usetesting // a short one: paths of Unix sockets
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			s := start(t, dir, "--control", "unix://"+dir+"/c", "--state", "memory", "--log-level", "trace", "--log-format", format, "--exec-allow", "/bin/sh ...")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			h := &hostiles{t: t, ctx: ctx, dir: dir, conn: s.api(t)}
			h.listeners()
			h.clients()
			h.calls()
			if format == "text" {
				h.sockctl()
			}
			_ = s.cmd.Process.Signal(os.Interrupt)
			_ = s.cmd.Wait()
			text, err := os.ReadFile(s.log.Name())
			if err != nil {
				t.Fatal(err)
			}
			checkLog(t, text, format)
			for what, least := range map[string]int{"audit": 10, "stderr": 1, "PROXY": 1, "ClientHello": 1} {
				if n := strings.Count(string(text), what); n < least {
					t.Errorf("%q is in the log %d times", what, n)
				}
			}
		})
	}
}

type hostiles struct {
	t    *testing.T
	ctx  context.Context
	dir  string
	conn *grpc.ClientConn
	at   map[string]string // addresses of listeners, by name
}

// listeners are those that hostile bytes are sent to.
func (h *hostiles) listeners() {
	h.at = map[string]string{}
	handler := func(kind string) *pb.Handler {
		switch kind {
		case "http":
			return &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: []byte(hostile)}}}
		case "route":
			up := []*pb.Upstream{{Address: "unix://" + h.dir + "/nobody" + bidi}}
			return &pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{Routes: []*pb.Route{{ServerNames: []string{"a.test"}, Upstreams: up}}}}}
		case "forward":
			return &pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{Upstreams: []*pb.Upstream{{Address: "unix://" + h.dir + "/nobody" + bidi}}}}}
		case "exec":
			return &pb.Handler{Kind: &pb.Handler_Exec{Exec: &pb.ExecHandler{Command: []string{"/bin/sh", "-c", `cat >&2; exit 3`}}}}
		}
		return &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}
	}
	for name, uri := range map[string]string{
		"http": "tcp://127.0.0.1:0", "route": "tcp://127.0.0.1:0", "forward": "tcp://127.0.0.1:0", "exec": "tcp://127.0.0.1:0",
		"proxy": "tcp://127.0.0.1:0", "udp": "udp://127.0.0.1:0", "path": "unix://" + h.dir + "/p" + bidi, "gram": "unixgram://" + h.dir + "/g",
	} {
		spec := &pb.ListenerSpec{Listen: []string{uri}, Handler: handler(name)}
		if name == "proxy" {
			spec.ProxyProtocol = &pb.ProxyProtocolConfig{Mode: pb.ProxyProtocolConfig_MODE_REQUIRED}
		}
		made, err := pb.NewListenerServiceClient(h.conn).CreateListener(h.ctx, &pb.CreateListenerRequest{
			ListenerId: name, Listener: &pb.Listener{Spec: spec, Labels: map[string]string{"evil": bidi}},
		})
		if err != nil {
			h.t.Fatalf("%s: %q", name, err)
		}
		_, h.at[name], _ = strings.Cut(made.GetListener().GetStatus().GetBound()[0].GetUri(), "://")
	}
}

// clients send, and wait until they are answered or closed; some stay.
func (h *hostiles) clients() {
	long := strings.Repeat("A", 64<<10)
	for name, texts := range map[string][]string{
		"http": {
			hostile, "GET /" + hostile + " HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: " + hostile + "\r\n\r\n",
			"GET / HTTP/1.1\r\n" + hostile + ": x\r\n\r\n", hostile + " / HTTP/1.1\r\n\r\n", "GET /" + long, long,
		},
		"route":   {hostile, long, ""},
		"forward": {hostile},
		"proxy": {
			"PROXY TCP4 " + hostile + "\r\n", "PROXY UNKNOWN " + hostile + "\r\n", hostile, long,
			proxyV2(0x31, append(pathOf(hostile), pathOf("/x")...)), proxyV2(0x11, append(make([]byte, 12), tlv(2, hostile)...)),
			proxyV2(0x11, append(make([]byte, 12), tlv(0xea, long[:1000]+hostile)...)),
		},
		"exec": {hostile + "\n" + long + "\n"},
	} {
		for _, text := range texts {
			c, err := net.Dial("tcp", h.at[name])
			if errors.Is(err, syscall.ECONNRESET) {
				continue // it was closed already
			}
			if err != nil {
				h.t.Fatal(err)
			}
			h.t.Cleanup(func() { _ = c.Close() })
			_ = c.SetDeadline(time.Now().Add(patience))
			if text == "" {
				_ = tls.Client(c, &tls.Config{ServerName: strings.ReplaceAll(hostile, "\x00", "."), InsecureSkipVerify: true}).Handshake() //nolint:gosec // it is not to succeed
				continue
			}
			_, _ = io.WriteString(c, text) // it may be closed meanwhile
			_ = c.(*net.TCPConn).CloseWrite()
			if name != "proxy" {
				_, _ = io.Copy(io.Discard, c)
			}
		}
	}
	if c, err := net.Dial("udp", h.at["udp"]); err == nil {
		_, _ = io.WriteString(c, hostile)
		_ = c.Close()
	}
	// Peers with addresses of their own choice, who stay.
	for i, own := range []string{"@" + hostile, h.dir + "/own\x1b[2J\nFORGED=1"} {
		for network, to := range map[string]string{"unix": h.at["path"], "unixgram": h.at["gram"]} {
			if to == "" {
				continue
			}
			if i == 0 {
				own = fmt.Sprintf("@%s%s", network, hostile)
			}
			c, err := net.DialUnix(network, &net.UnixAddr{Net: network, Name: own}, &net.UnixAddr{Net: network, Name: to})
			if err != nil {
				h.t.Logf("%q to %q: %v", own, to, err)
				continue
			}
			h.t.Cleanup(func() { _ = c.Close() })
			_, _ = io.WriteString(c, "hello")
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 8)); err != nil {
				h.t.Errorf("%q to %q: %v", own, to, err)
			}
			_ = os.Remove(own)
		}
	}
}

// proxyV2 is a header of the PROXY protocol.
func proxyV2(family byte, rest []byte) string {
	head := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21"), family)
	return string(append(binary.BigEndian.AppendUint16(head, uint16(len(rest))), rest...)) + "hello"
}

func tlv(kind byte, value string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value))), value...)
}

// pathOf is a Unix address in a header of the PROXY protocol.
func pathOf(path string) []byte { return append([]byte(path), make([]byte, 108)...)[:108] }

// calls are made by a client of the API.
func (h *hostiles) calls() {
	list, tuning, conns := pb.NewListenerServiceClient(h.conn), pb.NewTuningServiceClient(h.conn), pb.NewConnectionServiceClient(h.conn)
	daemon, sockets := pb.NewDaemonServiceClient(h.conn), pb.NewSocketServiceClient(h.conn)
	made, err := sockets.CreateSocket(h.ctx, &pb.CreateSocketRequest{Network: pb.Network_NETWORK_UNIX})
	if err != nil {
		h.t.Fatal(err)
	}
	name := made.GetSocket().GetName()
	abstract := "unix://@" + strings.ReplaceAll(asText, "\x00", "")
	for what, call := range map[string]func() error{
		"create": func() error {
			_, err := list.CreateListener(h.ctx, &pb.CreateListenerRequest{ListenerId: asText, Listener: &pb.Listener{Name: asText}})
			return err
		},
		"address": func() error {
			_, err := list.CreateListener(h.ctx, &pb.CreateListenerRequest{ListenerId: "x", Listener: &pb.Listener{Spec: &pb.ListenerSpec{Listen: []string{asText}}}})
			return err
		},
		"stop": func() error { _, err := list.StopListener(h.ctx, &pb.StopListenerRequest{Name: asText}); return err },
		"etag": func() error {
			_, err := list.StopListener(h.ctx, &pb.StopListenerRequest{Name: "udp", Etag: asText})
			return err
		},
		"id": func() error {
			_, err := list.StopListener(h.ctx, &pb.StopListenerRequest{Name: "udp", RequestId: asText})
			return err
		},
		"filter": func() error {
			_, err := list.ListListeners(h.ctx, &pb.ListListenersRequest{Filter: asText})
			return err
		},
		"tune": func() error {
			_, err := tuning.SetOptions(h.ctx, &pb.SetOptionsRequest{Target: "udp", Options: map[string]*structpb.Value{asText: structpb.NewStringValue(asText)}})
			return err
		},
		"logger": func() error { _, err := daemon.SetLogLevel(h.ctx, &pb.SetLogLevelRequest{Logger: asText}); return err },
		"connect": func() error {
			_, err := sockets.Connect(h.ctx, &pb.ConnectRequest{Name: name, Address: abstract})
			return err
		},
		"dial": func() error {
			_, err := sockets.Connect(h.ctx, &pb.ConnectRequest{Name: name, Address: "tcp://" + asText + ":1"})
			return err
		},
		"close": func() error {
			stream, err := conns.CloseConnections(h.ctx, &pb.CloseConnectionsRequest{Filter: asText})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"upgrade": func() error {
			stream, err := daemon.Upgrade(h.ctx, &pb.UpgradeRequest{Executable: "/nowhere/" + strings.ReplaceAll(asText, "\x00", "")})
			for err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	} {
		if err := call(); err == nil || status.Code(err) == codes.OK {
			h.t.Errorf("%s is done", what)
		}
	}
}

// sockctl shows all of it, in every form.
func (h *hostiles) sockctl() {
	arg := strings.ReplaceAll(asText, "\x00", "")
	shown := 0
	for _, words := range [][]string{
		append([]string{"inspect"}, slices.Sorted(maps.Keys(h.at))...), {"conn", "ls"}, {"events", "--filter", "severity >= debug"}, {"ls"},
	} {
		for _, form := range []string{"wide", "json", "yaml"} {
			shown += h.show(form, words...)
		}
	}
	for _, words := range [][]string{
		{"start", arg, "-l", "tcp://127.0.0.1:0"},
		{"start", "x", "-l", "unix://" + arg, "--handler", "echo"},
		{"stop", arg},
		{"ls", "--filter", arg},
		{"daemon", "log-level", arg},
		{"inspect", arg},
		{"connect", "unix://@" + arg},
		{"tune", "udp", arg + "=1"},
	} {
		shown += h.show("table", words...)
	}
	if shown < 20 {
		h.t.Errorf("%d of the hostile texts are shown: the test shows too little", shown)
	}
}

// show runs sockctl, and returns how much of what is hostile it has shown.
func (h *hostiles) show(form string, words ...string) int {
	cmd := exec.CommandContext(h.ctx, "sockctl", append(words, "-o", form)...)
	cmd.Env = append(os.Environ(), "SOCKMGR_ADDR=unix://"+h.dir+"/c", "GORACE=atexit_sleep_ms=0")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // many are refused
	what := fmt.Sprintf("sockctl %q -o %s", words, form)
	checkShown(h.t, what, out.String())
	checkShown(h.t, what, errs.String())
	var err error
	switch form {
	case "json":
		for all := json.NewDecoder(&out); err == nil; {
			err = all.Decode(new(any))
		}
	case "yaml":
		for all := yaml.NewDecoder(&out); err == nil; {
			err = all.Decode(new(any))
		}
	default:
		return strings.Count(out.String()+errs.String(), "txt.exe")
	}
	if !errors.Is(err, io.EOF) {
		h.t.Errorf("%s: %v", what, err)
	}
	return strings.Count(errs.String(), "txt.exe")
}

// checkShown looks for what is not text, and for lines that somebody else began.
func checkShown(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
			t.Errorf("%s shows %q", what, r)
			break
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "FORGED") {
			t.Errorf("%s: a line is %q", what, line)
		}
	}
}

func checkLog(t *testing.T, text []byte, format string) {
	t.Helper()
	checkShown(t, "the log", string(text))
	for line := range strings.Lines(string(text)) {
		switch {
		case format == "json" && !json.Valid([]byte(line)):
			t.Errorf("no JSON: %q", line)
		case format == "text" && (len(line) < 30 || line[4] != '-' || line[10] != 'T'):
			t.Errorf("no line of the log: %q", line)
		}
	}
}
