package service

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// An auditor writes one line and tells one event of every call that changes
// something, and of every refusal: who, what, from what to what, how it ended,
// and under which id. Refusals that come in numbers are counted only.
type auditor struct {
	log hclog.Logger
	m   *manager.Manager

	denied *quota // lines and events of refusals
	busy   *quota // of those who use sockets: their events, and what they begin
	begun  firsts
}

const (
	deniedBurst, deniedRate = 10, 1
	busyBurst, busyRate     = 100, 10
	auditChanges            = 16  // of one call, before and after
	auditText               = 200 // bytes of one of them
)

func newAuditor(log hclog.Logger, m *manager.Manager) *auditor {
	log = log.With() // with a level of its own, that of the start: who sets levels does not silence it
	return &auditor{log: log, m: m, denied: newQuota(deniedBurst, deniedRate), busy: newQuota(busyBurst, busyRate)}
}

// audited are methods below the operator's that change what is reachable, or how.
// What moves bytes is not written down.
var audited = map[string]bool{
	"/sockmgr.v1.TuningService/SetOptions":   true,
	"/sockmgr.v1.SocketService/CreateSocket": true, "/sockmgr.v1.SocketService/Bind": true,
	"/sockmgr.v1.SocketService/Listen": true, "/sockmgr.v1.SocketService/Connect": true, "/sockmgr.v1.SocketService/CloseSocket": true,
}

// auditedOnce are methods that reach others and move bytes: of each caller, the
// first for every socket and address is written down.
var auditedOnce = map[string]bool{
	"/sockmgr.v1.SocketService/SendTo": true, "/sockmgr.v1.SocketService/Accept": true,
}

// upgradeMethod runs a program even to look only.
const upgradeMethod = "/sockmgr.v1.DaemonService/Upgrade"

// done notes a call that has ended, and returns the error that its caller gets.
func (a *auditor) done(ctx context.Context, method string, need pb.Role, req, resp any, err error) error {
	if err != nil && isRefusal(err) {
		ctx = noted(ctx)
		a.refused(ctx, method, req, err)
		return identified(ctx, err)
	}
	if !changes(method, need, req) {
		return identified(ctx, err)
	}
	var dropped uint64 // of the caller's, before this
	if auditedOnce[method] {
		who := callerOf(ctx).String()
		code := status.Code(toStatus(err))
		if code == codes.DeadlineExceeded || code == codes.Canceled || !a.begun.is(fmt.Sprint(who, method, reached(req), code)) {
			return identified(ctx, err)
		}
		var ok bool
		if ok, dropped = a.busy.take(who); !ok {
			return identified(ctx, err)
		}
		ctx = noted(ctx)
	}
	if n := noteOf(ctx); n != nil && n.again {
		return err
	}
	outcome, kind := "done", "call.done"
	if err != nil {
		outcome, kind = status.Code(toStatus(err)).String(), "call.failed"
	}
	severity := manager.Notice
	if err == nil && !toldHere(method) {
		severity = manager.Debug // the manager has told more of it
	}
	note := noteOf(ctx)
	if size, small := sizeOf(req, resp); small && err == nil && a.m != nil && !a.log.IsInfo() && !strings.HasPrefix(method, socketMethods) {
		who := callerOf(ctx).identity() // not its connection, which may be gone by then
		a.m.TellLater(ctx, auditWeight+size, func() manager.Event {
			note.addAnswer(resp)
			return entryOf(who, note, method, req, outcome, nil).told(kind, severity)
		})
		return nil
	}
	note.addAnswer(resp)
	e := a.entry(ctx, method, req, outcome, err)
	e.dropped(dropped)
	a.log.Info("audit", e.line...)
	if strings.HasPrefix(method, socketMethods) && !auditedOnce[method] {
		ok, dropped := a.busy.take(callerOf(ctx).String())
		if !ok {
			return identified(ctx, err)
		}
		e.dropped(dropped)
	}
	a.tell(ctx, e.told(kind, severity))
	return identified(ctx, err)
}

// The event of a call is put into words when somebody reads it, if nothing else is
// done with them and what it is of is no larger than so many bytes. The log of
// events holds on to that, which takes some times as much in memory.
const (
	wordsLater  = 2048
	auditWeight = 2048
)

// sizeOf is how many bytes messages take on their way, and whether that is little.
func sizeOf(messages ...any) (size int, small bool) {
	for _, m := range messages {
		if r, ok := m.(*pb.ApplyListenersRequest); ok && len(r.GetListeners()) > wordsLater/2 { // each takes two or more
			return 2 * len(r.GetListeners()), false
		}
		if p, ok := m.(proto.Message); ok && size <= wordsLater {
			size += proto.Size(p)
		}
	}
	return size, size <= wordsLater
}

// reached is the socket and the address of a request of those, and cheap.
func reached(req any) string {
	switch r := req.(type) {
	case *pb.SendToRequest:
		return r.GetName() + " " + r.GetAddress()
	case *pb.AcceptRequest:
		return r.GetName()
	}
	return ""
}

// changes reports whether a call that nobody refused is written down.
func changes(method string, need pb.Role, req any) bool {
	if r, ok := req.(interface{ GetValidateOnly() bool }); ok && r.GetValidateOnly() && method != upgradeMethod {
		return false
	}
	return need >= pb.Role_ROLE_OPERATOR && !strings.HasPrefix(method, reflectionPrefix) || audited[method] || auditedOnce[method]
}

// toldHere reports whether the manager has no event of its own of a change.
func toldHere(method string) bool {
	return method == "/sockmgr.v1.TuningService/ConfirmOptions" ||
		!strings.HasPrefix(method, "/sockmgr.v1.ListenerService/") && !strings.HasPrefix(method, "/sockmgr.v1.TuningService/")
}

func isRefusal(err error) bool {
	reason := listeners.Reason(issueOf(err).GetCode())
	return reason == listeners.RoleMissing || reason == listeners.PolicyDenied
}

// refused notes a refusal.
func (a *auditor) refused(ctx context.Context, method string, req any, err error) {
	ok, dropped := a.denied.take(callerOf(ctx).String())
	if !ok {
		return
	}
	e := a.entry(ctx, method, req, "refused", err)
	e.dropped(dropped)
	a.log.Warn("audit", e.line...)
	e.event.Message = clip(status.Convert(toStatus(err)).Message(), maxDescription)
	a.tell(ctx, e.told("call.refused", manager.Warning))
}

// shut notes a connection that was refused before anybody was known.
func (a *auditor) shut(conn net.Conn, err error) {
	ok, dropped := a.denied.take("handshake")
	if !ok {
		return
	}
	e := newAuditEntry()
	e.add("caller", "unknown")
	e.add("remote", conn.RemoteAddr().String())
	e.add("local", conn.LocalAddr().String())
	e.add("outcome", "connection refused")
	e.add("error", clip(err.Error(), maxDescription))
	e.dropped(dropped)
	a.log.Warn("audit", e.line...)
	e.event.Message = "a control connection was refused: " + clip(err.Error(), maxDescription)
	a.tell(context.Background(), e.told("connection.refused", manager.Warning))
}

// slowed notes a client whose calls are not read as fast as they come.
func (a *auditor) slowed(c caller, why string) {
	ok, dropped := a.denied.take("slowed " + c.String())
	if !ok {
		return
	}
	e := newAuditEntry()
	e.addCaller(c)
	e.add("outcome", "slowed")
	e.add("error", why)
	e.dropped(dropped)
	a.log.Warn("audit", e.line...)
	e.event.Message = fmt.Sprintf("calls of %v are read no faster than they may come: %s", c, why)
	a.tell(narrowed(context.Background(), c), e.told("connection.slowed", manager.Warning))
}

func (a *auditor) tell(ctx context.Context, e manager.Event) {
	if a.m != nil {
		a.m.Tell(a.caused(ctx), e)
	}
}

// caused returns a context in which the caller causes what happens.
func (a *auditor) caused(ctx context.Context) context.Context {
	return manager.WithCause(ctx, manager.Cause{Actor: callerOf(ctx).String(), RequestID: requestIDOf(ctx)})
}

// An auditEntry is a line and an event, which say the same.
type auditEntry struct {
	line  []any
	event manager.Event
}

func newAuditEntry() *auditEntry {
	return &auditEntry{event: manager.Event{Resource: "daemon", Attributes: map[string]string{}}}
}

// entry says who called, what, and how it ended.
func (a *auditor) entry(ctx context.Context, method string, req any, outcome string, err error) *auditEntry {
	return entryOf(callerOf(ctx), noteOf(ctx), method, req, outcome, err)
}

func entryOf(c caller, n *callNote, method string, req any, outcome string, err error) *auditEntry {
	_, call, _ := strings.Cut(method[1:], "/")
	e := newAuditEntry()
	e.event.Message = fmt.Sprintf("%v called %s", c, call)
	e.addCaller(c)
	e.add("method", method)
	e.add("what", subjectOf(req))
	e.add("outcome", outcome)
	if n != nil {
		if n.id != "" {
			e.add("request", n.id)
		}
		if all := n.all(); len(all) > 0 {
			e.add("changes", all)
		}
	}
	if err != nil {
		e.add("error", clip(status.Convert(toStatus(err)).Message(), maxDescription))
	}
	return e
}

// told is the event, of such a kind.
func (e *auditEntry) told(kind string, severity manager.Severity) manager.Event {
	e.event.Type, e.event.Severity = kind, severity
	return e.event
}

func (e *auditEntry) addCaller(c caller) {
	e.add("caller", c.String())
	if c.who.IsUser {
		e.add("uid", c.who.UID)
		e.add("pid", c.who.PID)
	}
	if len(c.who.Names) > 0 {
		e.add("certificate", clip(strings.Join(c.who.Names, " "), maxDescription))
	}
}

// add adds a value; newlines in anybody's texts do not make more lines than one.
func (e *auditEntry) add(name string, value any) {
	text := fmt.Sprint(value)
	switch v := value.(type) {
	case string:
		value = oneLine(v)
	case []string:
		text = strings.Join(v, "\n")
		lines := make([]string, len(v))
		for i, one := range v {
			lines[i] = oneLine(one)
		}
		value = lines
	}
	e.line = append(e.line, name, value)
	e.event.Attributes[name] = text
}

// lineEnds is made once: that takes longer than most uses of it.
var lineEnds = strings.NewReplacer("\n", `\n`, "\r", `\r`)

func oneLine(text string) string { return lineEnds.Replace(text) }

// dropped says how many of the caller were not written before this one.
func (e *auditEntry) dropped(n uint64) {
	if n > 0 {
		e.add("not-written", n)
	}
}
