package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// describeListener is a listener for people.
func (a *app) describeListener(l *pb.Listener, options map[string]*structpb.Value) []*section {
	spec, status := l.GetSpec(), l.GetStatus()
	what := &section{title: "listener " + listenerID(l.GetName())}
	what.add("state", word(status.GetState()))
	what.add("message", status.GetMessage())
	what.add("wanted", word(spec.GetDesiredState()))
	what.add("listen", strings.Join(spec.GetListen(), ", "))
	what.add("bound", strings.Join(uris(status.GetBound()), ", "))
	what.add("handler", handlerText(spec.GetHandler()))
	what.add("labels", pairs(l.GetLabels()))
	what.add("annotations", pairs(l.GetAnnotations()))
	what.add("running since", a.when(status.GetStartTime()))
	what.add("next try", a.when(status.GetRetryTime()))
	what.add("made", a.when(l.GetCreateTime()))
	what.add("changed", a.when(l.GetUpdateTime()))
	what.add("uid", l.GetUid())
	what.add("generation", fmt.Sprint(l.GetGeneration()))

	traffic := &section{title: "traffic"}
	traffic.add("connections", fmt.Sprintf("%d open, %d accepted, %d refused",
		status.GetActiveConnections(), status.GetAcceptedTotal(), status.GetRejectedTotal()))
	if limit := status.GetAcceptQueueLimit(); limit > 0 {
		traffic.add("waiting", fmt.Sprintf("%d of %d", status.GetAcceptQueue(), limit))
	}
	traffic.add("bytes", size(status.GetReceivedBytes())+" in, "+size(status.GetSentBytes())+" out")
	traffic.add("drops", fmt.Sprint(status.GetDropsTotal()))

	all := []*section{what, traffic}
	for _, s := range status.GetSockets() {
		all = append(all, a.describeSocket(s)...)
	}
	return append(all, optionSection("options wanted", spec.GetOptions()), optionSection("options in force", options))
}

// describeSocket is a listening socket for people.
func (a *app) describeSocket(s *pb.Socket) []*section {
	queue := s.GetQueue()
	what := &section{title: "socket " + socketID(s.GetName())}
	what.add("listener", listenerID(s.GetListener()))
	what.add("descriptor (fileno)", fmt.Sprint(s.GetFd()))
	what.add("local (getsockname)", s.GetLocal().GetUri())
	what.add("cookie", socketID(s.GetName()))
	what.add("inode", fmt.Sprint(s.GetInode()))
	if s.GetTcpState() != pb.TcpState_TCP_STATE_UNSPECIFIED {
		what.add("TCP state", word(s.GetTcpState()))
	}
	what.add("waits for", strings.Join(s.GetWaitsFor(), ", "))
	if limit := queue.GetAcceptQueueLimit(); limit > 0 {
		what.add("backlog in force", fmt.Sprint(limit))
		what.add("waiting", fmt.Sprint(queue.GetAcceptQueue()))
	}
	what.add("drops", fmt.Sprint(queue.GetDrops()))
	what.add("memory", memoryText(s.GetMemory()))
	what.add("made", a.when(s.GetCreateTime()))
	return []*section{what}
}

// describeConnection is a connection for people.
func (a *app) describeConnection(c *pb.Connection, options map[string]*structpb.Value) []*section {
	what := &section{title: "connection " + connectionID(c.GetName())}
	what.add("listener", listenerID(c.GetListener()))
	what.add("state", word(c.GetState()))
	what.add("local (getsockname)", c.GetLocal().GetUri())
	what.add("remote (getpeername)", c.GetRemote().GetUri())
	if p := c.GetPeer(); p != nil {
		what.add("peer", strings.TrimSpace(fmt.Sprintf("pid %d uid %d gid %d %s", p.GetPid(), p.GetUid(), p.GetGid(), p.GetCommand())))
	}
	what.add("descriptor (fileno)", fmt.Sprint(c.GetFd()))
	if c.GetInode() > 0 {
		what.add("inode", fmt.Sprint(c.GetInode()))
	}
	what.add("waits for", strings.Join(c.GetWaitsFor(), ", "))
	what.add("age", a.age(c.GetCreateTime()))
	what.add("idle", a.age(c.GetLastActiveTime()))
	what.add("received", size(c.GetReceivedBytes())+" in "+plural(c.GetReceivedMessages(), "message"))
	what.add("sent", size(c.GetSentBytes())+" in "+plural(c.GetSentMessages(), "message"))
	if q := c.GetQueue(); q != nil {
		what.add("to be read", fmt.Sprintf("%s in the kernel, %s in the daemon",
			size(q.GetReceiveBytes()), size(q.GetUserReceiveBytes())))
		what.add("to be sent", fmt.Sprintf("%s not acknowledged, %s of it not sent, %s in the daemon",
			size(q.GetSendBytes()), size(q.GetUnsentBytes()), size(q.GetUserSendBytes())))
	}
	what.add("memory", memoryText(c.GetMemory()))
	return []*section{
		what,
		tcpSection(c.GetTcpInfo()),
		optionSection("options in force", options),
	}
}

// handlerText returns kind and configuration of a handler on one line.
func handlerText(h *pb.Handler) string {
	kind := handlerField(h)
	if kind == nil {
		return ""
	}
	words := []string{string(kind.Name())}
	m := h.ProtoReflect().Get(kind).Message()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		switch v := m.Get(f).Interface().(type) {
		case []byte:
			words = append(words, fmt.Sprintf("%s=%s", f.Name(), size(uint64(len(v)))))
		case protoreflect.Map:
			words = append(words, fmt.Sprintf("%s=%d", f.Name(), v.Len()))
		default:
			words = append(words, fmt.Sprintf("%s=%v", f.Name(), v))
		}
	}
	return strings.Join(words, " ")
}

func memoryText(m *pb.SocketMemory) string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%s of %s to receive, %s of %s to send",
		size(uint64(m.GetReceiveAllocBytes())), size(uint64(m.GetReceiveLimitBytes())),
		size(uint64(m.GetSendQueuedBytes())), size(uint64(m.GetSendLimitBytes())))
}

// tcpSection lists what is not zero, each in the unit that its name says. It
// goes by the descriptor, so that a fact added to the API needs no line here.
func tcpSection(info *pb.TcpInfo) *section {
	s := &section{title: "TCP_INFO"}
	r := info.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !r.Has(f) {
			continue
		}
		name := string(f.Name())
		value := factText(f, r.Get(f), name)
		name = strings.TrimSuffix(strings.TrimSuffix(name, "_bytes"), "_bytes_per_second")
		s.add(strings.ReplaceAll(name, "_", " "), value)
	}
	return s
}

func factText(f protoreflect.FieldDescriptor, v protoreflect.Value, name string) string {
	if f.Enum() != nil {
		return enumWord(f.Enum(), v.Enum())
	}
	switch v := v.Interface().(type) {
	case protoreflect.List:
		var words []string
		for i := range v.Len() {
			words = append(words, v.Get(i).String())
		}
		return strings.Join(words, ", ")
	case protoreflect.Message:
		if d, ok := v.Interface().(*durationpb.Duration); ok {
			return d.AsDuration().Round(time.Microsecond).String()
		}
		return ""
	case uint32:
		return countText(uint64(v), name)
	case uint64:
		return countText(v, name)
	}
	return v.String()
}

func countText(n uint64, name string) string {
	switch {
	case strings.HasSuffix(name, "bytes_per_second"):
		return size(n) + "/s"
	case strings.HasSuffix(name, "_bytes"), strings.HasPrefix(name, "bytes_"):
		return size(n)
	}
	return fmt.Sprint(n)
}

func optionSection(title string, options map[string]*structpb.Value) *section {
	s := &section{title: title}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		s.add(name, "= "+valueText(options[name]))
	}
	return s
}
