package cli

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// startFlags are the flags of start as they were written.
type startFlags struct {
	listen, options, labels, headers []string
	handler                          string
	data, body, bodyFile             string
	keepOpen                         bool
	status                           uint32
	path                             string
	upstreams                        []string
	sendProxy                        uint32
	proxyMode                        string
	tls                              tlsFlags
	balance                          string
	connectTimeout, healthInterval   time.Duration
	exec                             execFlags
	concurrency                      string
	command                          []string // after --
	changed                          func(flag string) bool
}

// A definition is what the flags say of a listener, and which fields that is.
type definition struct {
	id       string
	listener *pb.Listener
	mask     []string
}

func (a *app) definition(ctx context.Context, id string, f *startFlags) (*definition, error) {
	if id == "" {
		return nil, usagef("a name cannot be empty")
	}
	d := &definition{id: id}
	spec := &pb.ListenerSpec{DesiredState: pb.ListenerSpec_DESIRED_STATE_RUNNING, Listen: f.listen}
	if len(f.listen) > 0 {
		d.mask = append(d.mask, "spec.listen")
	}
	var err error
	if spec.Handler, err = a.handler(ctx, f); err != nil {
		return nil, err
	}
	if spec.Handler != nil {
		d.mask = append(d.mask, "spec.handler")
	}
	if spec.ProxyProtocol, err = proxyProtocol(f); err != nil {
		return nil, err
	}
	if spec.ProxyProtocol != nil {
		d.mask = append(d.mask, "spec.proxy_protocol")
	}
	if spec.Tls, err = f.tls.config(); err != nil {
		return nil, err
	}
	if spec.Tls != nil {
		d.mask = append(d.mask, "spec.tls")
	}
	if spec.Concurrency, err = concurrency(f.concurrency); err != nil {
		return nil, err
	}
	if spec.Concurrency != pb.ListenerSpec_CONCURRENCY_UNSPECIFIED {
		d.mask = append(d.mask, "spec.concurrency")
	}
	if spec.Options, err = parseOptions("--option", f.options); err != nil {
		return nil, err
	}
	for name := range spec.Options {
		d.mask = append(d.mask, "spec.options."+name)
	}
	labels, err := parsePairs("--label", f.labels)
	if err != nil {
		return nil, err
	}
	for name := range labels {
		d.mask = append(d.mask, "labels."+name)
	}
	slices.Sort(d.mask)
	d.listener = &pb.Listener{Name: listenerName(id), Labels: labels, Spec: spec}
	return d, nil
}

var handlerKinds = []string{"chargen", "daytime", "discard", "echo", "exec", "forward", "handoff", "http", "remote", "reply", "time"}

// kindOf says which kind of handler a flag is for.
var kindOf = []struct{ flag, kind string }{
	{"data", "reply"},
	{"keep-open", "reply"},
	{"status", "http"},
	{"header", "http"},
	{"body", "http"},
	{"body-file", "http"},
	{"path", "handoff"},
	{"upstream", "forward"},
	{"balance", "forward"},
	{"send-proxy", "forward"},
	{"connect-timeout", "forward"},
	{"health-interval", "forward"},
	{"env", "exec"},
	{"dir", "exec"},
	{"user", "exec"},
	{"pass-listener", "exec"},
	{"kill-timeout", "exec"},
}

// handler returns the handler that the flags describe, nil for none.
func (a *app) handler(ctx context.Context, f *startFlags) (*pb.Handler, error) {
	for _, k := range kindOf {
		if f.changed(k.flag) && f.handler != k.kind {
			return nil, usagef("--%s goes with --handler %s", k.flag, k.kind)
		}
	}
	if len(f.command) > 0 && f.handler != "exec" {
		return nil, usagef("a command after -- goes with --handler exec")
	}
	switch f.handler {
	case "":
		if f.changed("handler") {
			return nil, usagef("--handler cannot be empty: want %s", strings.Join(handlerKinds, ", "))
		}
		return nil, nil // was not asked for
	case "echo":
		return &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, nil
	case "discard":
		return &pb.Handler{Kind: &pb.Handler_Discard{Discard: &pb.DiscardHandler{}}}, nil
	case "daytime":
		return &pb.Handler{Kind: &pb.Handler_Daytime{Daytime: &pb.DaytimeHandler{}}}, nil
	case "time":
		return &pb.Handler{Kind: &pb.Handler_Time{Time: &pb.TimeHandler{}}}, nil
	case "chargen":
		return &pb.Handler{Kind: &pb.Handler_Chargen{Chargen: &pb.ChargenHandler{}}}, nil
	case "reply":
		return &pb.Handler{Kind: &pb.Handler_Reply{
			Reply: &pb.ReplyHandler{Payload: []byte(f.data), KeepOpen: f.keepOpen},
		}}, nil
	case "exec":
		return execHandler(f)
	case "http":
		return a.httpHandler(ctx, f)
	case "handoff":
		return &pb.Handler{Kind: &pb.Handler_Handoff{Handoff: &pb.HandoffHandler{Path: f.path}}}, nil
	case "remote":
		return &pb.Handler{Kind: &pb.Handler_Remote{Remote: &pb.RemoteHandler{}}}, nil
	case "forward":
		return forwardHandler(f)
	}
	return nil, usagef("--handler %q: want %s", f.handler, strings.Join(handlerKinds, ", "))
}

func (a *app) httpHandler(ctx context.Context, f *startFlags) (*pb.Handler, error) {
	h := &pb.HttpHandler{Status: f.status, Body: []byte(f.body)}
	for _, header := range f.headers {
		name, value, found := strings.Cut(header, ":")
		if name = strings.TrimSpace(name); !found || name == "" {
			return nil, usagef("--header %q: want 'name: value'", header)
		}
		if _, twice := h.Headers[name]; twice {
			return nil, usagef("--header %s is given twice", name)
		}
		if h.Headers == nil {
			h.Headers = map[string]string{}
		}
		h.Headers[name] = strings.TrimSpace(value)
	}
	if f.changed("body-file") {
		body, err := interruptible(ctx, func() ([]byte, error) {
			if f.bodyFile == "-" {
				return io.ReadAll(a.env.Stdin)
			}
			return os.ReadFile(f.bodyFile)
		})
		if err != nil {
			return nil, usagef("--body-file: %s", err)
		}
		h.Body = body
	}
	return &pb.Handler{Kind: &pb.Handler_Http{Http: h}}, nil
}
