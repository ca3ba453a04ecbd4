package service

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// An auditor writes a line for every change, and a line and an event for every
// refusal; changes that the manager tells of have an event already. Refusals
// that come in numbers are counted only: nobody fills the log with them.
type auditor struct {
	log hclog.Logger
	m   *manager.Manager

	mu     sync.Mutex
	denied map[string]*denials // by caller
}

// denials of one caller: so many at once, then so many in a second.
type denials struct {
	left    float64
	at      time.Time
	dropped uint64
}

const (
	deniedBurst   = 10
	deniedRate    = 1.0
	deniedCallers = 1024 // more are one
	auditChanges  = 16   // of one call, before and after
	auditText     = 200  // bytes of one of them
)

func newAuditor(log hclog.Logger, m *manager.Manager) *auditor {
	return &auditor{log: log, m: m, denied: map[string]*denials{}}
}

// audited are methods below the operator's that change what is reachable; what
// moves bytes is not written down.
var audited = map[string]bool{
	"/sockmgr.v1.SocketService/CreateSocket": true, "/sockmgr.v1.SocketService/Bind": true,
	"/sockmgr.v1.SocketService/Listen": true, "/sockmgr.v1.SocketService/Connect": true,
}

// toldHere are changes of which the manager has no event.
var toldHere = map[string]bool{
	takeMethod: true, superviseMethod: true,
	"/sockmgr.v1.DaemonService/SetLogLevel": true, "/sockmgr.v1.DaemonService/ShutdownDaemon": true, "/sockmgr.v1.DaemonService/Upgrade": true,
	"/sockmgr.v1.ConnectionService/CloseConnections": true, "/sockmgr.v1.StatsService/ResetPeaks": true,
	"/sockmgr.v1.SocketService/CreateSocket": true, "/sockmgr.v1.SocketService/Bind": true,
	"/sockmgr.v1.SocketService/Listen": true, "/sockmgr.v1.SocketService/Connect": true,
}

// done notes a call that has ended.
func (a *auditor) done(ctx context.Context, method string, need pb.Role, req, resp any, err error) {
	reason := listeners.Reason("")
	if err != nil {
		reason = listeners.Reason(issueOf(err).GetCode())
	}
	if reason == listeners.RoleMissing || reason == listeners.PolicyDenied {
		a.refused(ctx, method, req, err)
		return
	}
	checks, _ := req.(interface{ GetValidateOnly() bool })
	if need < pb.Role_ROLE_OPERATOR && !audited[method] || checks != nil && checks.GetValidateOnly() {
		return
	}
	outcome := "done"
	if err != nil {
		outcome = status.Code(toStatus(err)).String()
	}
	line := append(whoLine(ctx), "method", method, "what", subjectOf(req), "outcome", outcome)
	if id := requestIDOf(ctx); id != "" {
		line = append(line, "request", id)
	}
	if changes := changesOf(resp); len(changes) > 0 {
		line = append(line, "changes", changes)
	}
	if err != nil {
		line = append(line, "error", clip(err.Error(), maxDescription))
	}
	a.log.Info("audit", oneLine(line)...)
	if err == nil && toldHere[method] {
		_, call, _ := strings.Cut(method[1:], "/")
		a.tell(ctx, manager.Event{
			Type: "call.done", Severity: manager.Notice, Message: fmt.Sprintf("%v called %s", callerOf(ctx), call),
			Attributes: map[string]string{"method": method, "what": subjectOf(req)},
		})
	}
}

// refused notes a refusal.
func (a *auditor) refused(ctx context.Context, method string, req any, err error) {
	who := callerOf(ctx)
	ok, dropped := a.mayNote(who.String())
	if !ok {
		return
	}
	line := append(whoLine(ctx), "method", method, "what", subjectOf(req), "outcome", "refused", "error", clip(err.Error(), maxDescription))
	if id := requestIDOf(ctx); id != "" {
		line = append(line, "request", id)
	}
	if dropped > 0 {
		line = append(line, "not-written", dropped)
	}
	a.log.Warn("audit", oneLine(line)...)
	a.tell(ctx, manager.Event{
		Type: "call.refused", Severity: manager.Warning, Message: clip(err.Error(), maxDescription),
		Attributes: map[string]string{"method": method, "what": subjectOf(req)},
	})
}

// oneLine keeps newlines in anybody's texts from making more lines than one.
func oneLine(values []any) []any {
	for i, v := range values {
		if text, ok := v.(string); ok {
			values[i] = strings.ReplaceAll(text, "\n", `\n`)
		}
	}
	return values
}

// shut notes a connection that was refused before anybody was known.
func (a *auditor) shut(conn net.Conn, err error) {
	if ok, dropped := a.mayNote("handshake"); ok {
		a.log.Warn("audit", "caller", "unknown", "remote", conn.RemoteAddr().String(), "local", conn.LocalAddr().String(),
			"outcome", "connection refused", "error", clip(err.Error(), maxDescription), "not-written", dropped)
	}
}

// mayNote keeps the refusals of one caller few.
func (a *auditor) mayNote(who string) (ok bool, dropped uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	d := a.denied[who]
	if d == nil {
		if len(a.denied) >= deniedCallers {
			clear(a.denied)
		}
		d = &denials{left: deniedBurst, at: now}
		a.denied[who] = d
	}
	d.left, d.at = min(deniedBurst, d.left+deniedRate*now.Sub(d.at).Seconds()), now
	if d.left < 1 {
		d.dropped++
		return false, 0
	}
	d.left--
	dropped, d.dropped = d.dropped, 0
	return true, dropped
}

func (a *auditor) tell(ctx context.Context, e manager.Event) {
	if a.m != nil {
		e.Resource = "daemon"
		a.m.Tell(ctx, e)
	}
}

// whoLine says who called, as far as is known.
func whoLine(ctx context.Context) []any {
	c := callerOf(ctx)
	line := []any{"caller", c.String()}
	if c.who.IsUser {
		line = append(line, "uid", c.who.UID, "pid", c.who.PID)
	}
	if len(c.who.Names) > 0 {
		line = append(line, "certificate", clip(strings.Join(c.who.Names, " "), maxDescription))
	}
	return line
}

func requestID(req any) string {
	r, _ := req.(interface{ GetRequestId() string })
	if r == nil {
		return ""
	}
	return clip(r.GetRequestId(), auditText)
}

// subjectOf is what a request is about, as far as it names it.
func subjectOf(req any) string {
	var texts []string
	add := func(text string) {
		if text != "" {
			texts = append(texts, clip(text, auditText))
		}
	}
	if r, ok := req.(interface{ GetListenerId() string }); ok {
		add(r.GetListenerId())
	}
	if r, ok := req.(interface{ GetListener() *pb.Listener }); ok {
		add(r.GetListener().GetName())
	}
	if r, ok := req.(*pb.ApplyListenersRequest); ok {
		add(fmt.Sprintf("%d listeners of %q", len(r.GetListeners()), r.GetManager()))
	}
	for _, get := range []func() string{
		given(req, func(r interface{ GetName() string }) string { return r.GetName() }),
		given(req, func(r interface{ GetTarget() string }) string { return r.GetTarget() }),
		given(req, func(r interface{ GetChangeId() string }) string { return r.GetChangeId() }),
		given(req, func(r interface{ GetAddress() string }) string { return r.GetAddress() }),
		given(req, func(r interface{ GetFilter() string }) string { return r.GetFilter() }),
		given(req, func(r interface{ GetLogger() string }) string { return r.GetLogger() }),
		given(req, func(r interface{ GetExecutable() string }) string { return r.GetExecutable() }),
	} {
		add(get())
	}
	return strings.Join(texts, " ")
}

func given[T any](req any, get func(T) string) func() string {
	return func() string {
		if r, ok := req.(T); ok {
			return get(r)
		}
		return ""
	}
}

// changesOf is what a call has changed, from what to what.
func changesOf(resp any) []string {
	var all []string
	add := func(path, before, after string) {
		if len(all) < auditChanges {
			all = append(all, fmt.Sprintf("%s: %s -> %s", clip(path, auditText), clip(before, auditText), clip(after, auditText)))
		}
	}
	fields := func(prefix string, changes []*pb.FieldChange) {
		for _, c := range changes {
			add(prefix+c.GetPath(), c.GetBefore(), c.GetAfter())
		}
	}
	switch r := resp.(type) {
	case *pb.CreateListenerResponse:
		fields("", fieldChanges(&pb.Listener{}, r.GetListener()))
	case *pb.UpdateListenerResponse:
		fields("", r.GetChanges())
	case *pb.DeleteListenerResponse:
		fields("", fieldChanges(r.GetListener(), &pb.Listener{}))
	case *pb.ApplyListenersResponse:
		for _, c := range r.GetChanges() {
			fields(c.GetName()+" ", c.GetFields())
		}
	case *pb.SetOptionsResponse:
		for _, o := range r.GetResults() {
			add(o.GetTarget()+" "+o.GetName(), fmt.Sprint(o.GetPrevious().AsInterface()), fmt.Sprint(o.GetEffective().AsInterface()))
		}
	}
	return all
}
