package cli

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// describeListener is a listener for people.
func (a *app) describeListener(l *pb.Listener, options *inForce, wide bool) []*section {
	spec, status := l.GetSpec(), l.GetStatus()
	what := &section{title: "listener " + listenerID(l.GetName())}
	what.add("state", word(status.GetState()))
	what.add("message", status.GetMessage())
	what.add("wanted", word(spec.GetDesiredState()))
	what.add("listen", strings.Join(spec.GetListen(), ", "))
	what.add("bound", strings.Join(uris(status.GetBound()), ", "))
	what.add("handler", handlerText(spec.GetHandler()))
	if p := spec.GetProxyProtocol(); p != nil {
		what.add("PROXY protocol", strings.TrimSpace(word(p.GetMode())+" "+strings.Join(p.GetTrusted(), " ")))
	}
	what.add("TLS", tlsText(spec.GetTls()))
	what.add("access", accessText(spec.GetAccess()))
	if spec.GetConcurrency() != pb.ListenerSpec_CONCURRENCY_UNSPECIFIED {
		what.add("concurrency", word(spec.GetConcurrency()))
	}
	what.add("labels", pairs(l.GetLabels()))
	what.add("annotations", pairs(l.GetAnnotations()))
	what.add("resumes", a.when(status.GetResumeTime()))
	if spec.GetPauseMode() != pb.PauseMode_PAUSE_MODE_UNSPECIFIED {
		what.add("pause mode", word(spec.GetPauseMode()))
	}
	what.add("drain policy", drainPolicyText(spec.GetDrain()))
	what.add("drain", a.drainText(status.GetDrain()))
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

	all := []*section{what, traffic, a.tlsSection(status.GetTls()), upstreamSection(status.GetUpstreams())}
	for _, s := range status.GetSockets() {
		all = append(all, a.describeSocket(s)...)
	}
	return append(all, optionSection("options wanted", spec.GetOptions()), options.section(wide))
}

// accessText is who may connect, of long lists how many.
func accessText(p *pb.AccessPolicy) string {
	const most = 8
	var words []string
	add := func(verb string, list []string) {
		switch {
		case len(list) > most:
			words = append(words, fmt.Sprintf("%s %s and %d more", verb, strings.Join(list[:most], " "), len(list)-most))
		case len(list) > 0:
			words = append(words, verb+" "+strings.Join(list, " "))
		}
	}
	uids := make([]string, len(p.GetAllowUids()))
	for i, uid := range p.GetAllowUids() {
		uids[i] = fmt.Sprint(uid)
	}
	add("deny", p.GetDeny())
	add("allow", p.GetAllow())
	add("users", uids)
	if p.GetReset_() {
		words = append(words, "others are reset")
	}
	return strings.Join(words, "; ")
}

// drainPolicyText is how connections are let go.
func drainPolicyText(p *pb.DrainPolicy) string {
	var words []string
	if p.GetLameDuck() != nil {
		words = append(words, "lame duck "+p.GetLameDuck().AsDuration().String())
	}
	if p.GetTimeout() != nil {
		words = append(words, p.GetTimeout().AsDuration().String()+" to finish")
	}
	if p.GetResetRemaining() {
		words = append(words, "then reset")
	}
	return strings.Join(words, ", ")
}

// drainText is how far a drain is.
func (a *app) drainText(d *pb.DrainStatus) string {
	if d == nil {
		return ""
	}
	if d.GetRemainingConnections() == 0 {
		text := "done, of " + plural(d.GetInitialConnections(), "connection")
		if n := d.GetClosedConnections(); n > 0 {
			text += fmt.Sprintf("; %d closed when the time was over", n)
		}
		return text
	}
	return fmt.Sprintf("%d of %s left, until %s", d.GetRemainingConnections(), plural(d.GetInitialConnections(), "connection"), a.when(d.GetDeadline()))
}

// upstreamSection has a line for each upstream.
func upstreamSection(all []*pb.UpstreamStatus) *section {
	s := &section{title: "upstreams"}
	for _, u := range all {
		words := []string{"healthy"}
		if !u.GetHealthy() {
			words[0] = "left out"
		}
		if u.GetDrain() {
			words = append(words, "takes no new ones")
		}
		words = append(words, fmt.Sprintf("%d open, %d made, %d failed", u.GetActiveConnections(), u.GetConnectsTotal(), u.GetFailuresTotal()))
		if len(u.GetServerNames()) > 0 {
			words = append(words, "for "+strings.Join(u.GetServerNames(), " "))
		}
		if len(u.GetResolved()) > 0 {
			words = append(words, "is "+strings.Join(uris(u.GetResolved()), " "))
		}
		if u.GetLastError() != "" {
			words = append(words, "last error: "+u.GetLastError())
		}
		s.add(u.GetAddress(), strings.Join(words, ", "))
	}
	return s
}

// describeSocket is a listening socket for people.
func (a *app) describeSocket(s *pb.Socket) []*section {
	queue := s.GetQueue()
	what := &section{title: "socket " + socketID(s.GetName())}
	what.add("listener", listenerID(s.GetListener()))
	what.add("connection", connectionID(s.GetConnection()))
	what.add("owner", s.GetOwner())
	if s.GetOwner() != "" {
		what.add("role", word(s.GetRole()))
	}
	what.add("descriptor (fileno)", fmt.Sprint(s.GetFd()))
	what.add("local (getsockname)", s.GetLocal().GetUri())
	what.add("remote (getpeername)", s.GetRemote().GetUri())
	what.add("cookie", socketID(s.GetName()))
	what.add("inode", fmt.Sprint(s.GetInode()))
	if s.GetTcpState() != pb.TcpState_TCP_STATE_UNSPECIFIED {
		what.add("TCP state", word(s.GetTcpState()))
	}
	what.add("waits for", strings.Join(s.GetWaitsFor(), ", "))
	if limit := queue.GetAcceptQueueLimit(); limit > 0 {
		what.add("backlog in force", fmt.Sprint(limit))
		what.add("waiting", fmt.Sprintf("%d, at most %d so far", queue.GetAcceptQueue(), queue.GetAcceptQueuePeak()))
	}
	what.add("drops", fmt.Sprint(queue.GetDrops()))
	what.add("memory", memoryText(s.GetMemory()))
	what.add("made", a.when(s.GetCreateTime()))
	if info := s.GetTcpInfo(); info != nil {
		return []*section{what, tcpSection(info)}
	}
	return []*section{what}
}

// describeConnection is a connection for people.
func (a *app) describeConnection(c *pb.Connection, options *inForce, wide bool) []*section {
	what := &section{title: "connection " + connectionID(c.GetName())}
	what.add("listener", listenerID(c.GetListener()))
	what.add("state", word(c.GetState()))
	what.add("local (getsockname)", c.GetLocal().GetUri())
	what.add("remote (getpeername)", c.GetRemote().GetUri())
	what.add("remote (PROXY header)", c.GetProxiedRemote().GetUri())
	what.add("TLS", tlsInfoText(c.GetTls()))
	what.add("server name (TLS)", c.GetTls().GetServerName())
	what.add("client certificate", c.GetTls().GetClientSubject())
	what.add("upstream", c.GetUpstream().GetUri())
	if p := c.GetPeer(); p != nil {
		what.add("peer", strings.TrimSpace(fmt.Sprintf("pid %d uid %d gid %d %s", p.GetPid(), p.GetUid(), p.GetGid(), p.GetCommand())))
	}
	if pid := c.GetProgramPid(); pid > 0 {
		what.add("served by", fmt.Sprintf("pid %d", pid))
	}
	what.add("faults", strings.Join(c.GetFaults(), ", "))
	what.add("descriptor (fileno)", fmt.Sprint(c.GetFd()))
	if c.GetInode() > 0 {
		what.add("inode", fmt.Sprint(c.GetInode()))
	}
	what.add("waits for", strings.Join(c.GetWaitsFor(), ", "))
	what.add("closes because of", c.GetCloseReason())
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
		options.section(wide),
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
		case protoreflect.List:
			words = append(words, listText(f, v))
		case protoreflect.EnumNumber:
			words = append(words, fmt.Sprintf("%s=%s", f.Name(), enumWord(f.Enum(), v)))
		case protoreflect.Message:
			if d, ok := v.Interface().(*durationpb.Duration); ok {
				words = append(words, fmt.Sprintf("%s=%v", f.Name(), d.AsDuration()))
			} else {
				words = append(words, string(f.Name())) // it is set
			}
		default:
			words = append(words, fmt.Sprintf("%s=%v", f.Name(), v))
		}
	}
	return strings.Join(words, " ")
}

// listText is how many messages there are, or what the texts are.
func listText(f protoreflect.FieldDescriptor, v protoreflect.List) string {
	if f.Kind() != protoreflect.StringKind {
		return fmt.Sprintf("%s=%d", f.Name(), v.Len())
	}
	var items []string
	for i := range v.Len() {
		items = append(items, v.Get(i).String())
	}
	return fmt.Sprintf("%s=%q", f.Name(), items)
}

func memoryText(m *pb.SocketMemory) string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%s of %s to receive, %s of %s to send",
		size(uint64(m.GetReceiveAllocBytes())), size(uint64(m.GetReceiveLimitBytes())),
		size(uint64(m.GetSendQueuedBytes())), size(uint64(m.GetSendLimitBytes())))
}
