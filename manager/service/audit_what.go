package service

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

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
	switch r := req.(type) {
	case *pb.CloseConnectionsRequest:
		if r.GetFilter() == "" {
			add("all connections")
		}
	case *pb.ResetPeaksRequest:
		if r.GetFilter() == "" {
			add("all listeners")
		}
	case *pb.CreateSocketRequest:
		add(enumWord(r.GetNetwork()))
	case *pb.SetLogLevelRequest, *pb.ShutdownDaemonRequest, *pb.UpgradeRequest:
		add("daemon")
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

// addAnswer notes what an answer tells of changes.
func (n *callNote) addAnswer(resp any) {
	switch r := resp.(type) {
	case *pb.CreateListenerResponse:
		n.addFields("", fieldChanges(&pb.Listener{}, r.GetListener()))
	case *pb.UpdateListenerResponse:
		n.addFields("", r.GetChanges())
	case *pb.DeleteListenerResponse:
		n.addFields("", fieldChanges(r.GetListener(), &pb.Listener{}))
	case *pb.ApplyListenersResponse:
		for _, c := range r.GetChanges() {
			n.addChange(c)
		}
	case *pb.SetOptionsResponse:
		for _, o := range r.GetResults() {
			n.add(o.GetTarget()+" "+o.GetName(), fmt.Sprint(o.GetPrevious().AsInterface()), inForce(o))
		}
		if r.GetChangeId() != "" {
			n.add("tried as "+r.GetChangeId(), "", "until "+timeText(r.GetRevertTime().AsTime()))
		}
	case *pb.CreateSocketResponse:
		n.add("socket", "none", r.GetSocket().GetName())
	case *pb.BindResponse:
		n.add("local", "unbound", r.GetLocal().GetUri())
	case *pb.ListenResponse:
		n.add("backlog", "does not listen", fmt.Sprint(r.GetBacklog()))
	case *pb.ConnectResponse:
		n.add("remote", "none", r.GetSocket().GetRemote().GetUri())
	case *pb.CloseSocketResponse:
		n.add("socket", "open", "closed")
	case *pb.AcceptResponse:
		n.add("accepts", "nothing", r.GetSocket().GetName()+" from "+r.GetSocket().GetRemote().GetUri())
	case *pb.SendToResponse:
		n.add("sends to it", "no", "yes")
	}
}

// addChange notes what Apply has done with one listener, and what it changed of it.
func (n *callNote) addChange(c *pb.ListenerChange) {
	n.addAction(c)
	n.addFields(c.GetName(), c.GetFields())
}

// addAction notes what Apply has done with one listener.
func (n *callNote) addAction(c *pb.ListenerChange) {
	switch c.GetAction() {
	case pb.ListenerChange_ACTION_UNCHANGED:
	case pb.ListenerChange_ACTION_FAILED:
		n.add(c.GetName(), "as before", "failed, "+c.GetError().GetCode())
	default:
		n.add(c.GetName(), "as before", actionWords[c.GetAction()])
	}
}

// actionWords are those that enumWord has, worked out once.
var actionWords = func() map[pb.ListenerChange_Action]string {
	words := map[pb.ListenerChange_Action]string{}
	for _, a := range actionToPB {
		words[a] = enumWord(a)
	}
	return words
}()

// inForce is what has come of an option.
func inForce(o *pb.OptionResult) string {
	if o.GetOutcome() == pb.OptionResult_OUTCOME_FAILED {
		return fmt.Sprintf("failed to be %v", o.GetRequested().AsInterface())
	}
	return fmt.Sprint(o.GetEffective().AsInterface())
}

// enumWord is deleted for ACTION_DELETED.
func enumWord(e protoreflect.Enum) string {
	value := e.Descriptor().Values().ByNumber(e.Number())
	if value == nil {
		return fmt.Sprint(e.Number())
	}
	return strings.ToLower(strings.TrimPrefix(string(value.Name()), enumPrefix(e.Descriptor())))
}
