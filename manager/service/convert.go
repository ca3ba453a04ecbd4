package service

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// Collections of resource names.
const (
	listenerPrefix   = "listeners/"
	connectionPrefix = "connections/"
	socketPrefix     = "sockets/"
)

// bare takes the collection off a name; clients may send either.
func bare(name, prefix string) string { return strings.TrimPrefix(name, prefix) }

func hexName(prefix string, cookie uint64) string {
	return prefix + strconv.FormatUint(cookie, 16)
}

var networkToPB = map[listeners.Network]pb.Network{
	listeners.TCP: pb.Network_NETWORK_TCP, listeners.UDP: pb.Network_NETWORK_UDP, listeners.Unix: pb.Network_NETWORK_UNIX,
	listeners.Unixgram: pb.Network_NETWORK_UNIXGRAM, listeners.Unixpacket: pb.Network_NETWORK_UNIXPACKET,
}

var stateToPB = map[manager.State]pb.ListenerStatus_State{
	manager.Running: pb.ListenerStatus_STATE_RUNNING, manager.Limited: pb.ListenerStatus_STATE_LIMITED,
	manager.Paused: pb.ListenerStatus_STATE_PAUSED, manager.Draining: pb.ListenerStatus_STATE_DRAINING, manager.Stopped: pb.ListenerStatus_STATE_STOPPED,
	manager.Failed: pb.ListenerStatus_STATE_FAILED,
}

func timeToPB(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeIn is timeToPB, in a message that is there.
func timeIn(to *timestamppb.Timestamp, t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	to.Seconds, to.Nanos = t.Unix(), int32(t.Nanosecond())
	return to
}

func addressToPB(a listeners.Address) *pb.SocketAddress {
	return addressIn(new(pb.SocketAddress), a, a.String())
}

// addressIn is addressToPB, in a message that is there and with the URI.
func addressIn(out *pb.SocketAddress, a listeners.Address, uri string) *pb.SocketAddress {
	out.Uri, out.Network, out.Path = uri, networkToPB[a.Network.Base()], a.Path
	if a.IP.IsValid() {
		ip := a.IP.Addr()
		out.Zone, out.Ip, out.Port = ip.Zone(), ip.WithZone("").String(), uint32(a.IP.Port())
	}
	return out
}

// handlerToPB and handlerFromPB have one case for each kind of handler.
func handlerToPB(h listeners.HandlerSpec) *pb.Handler {
	switch h := h.(type) {
	case *listeners.Echo, listeners.Echo:
		return &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}
	case *listeners.Discard, listeners.Discard:
		return &pb.Handler{Kind: &pb.Handler_Discard{Discard: &pb.DiscardHandler{}}}
	case *listeners.Reply:
		return &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{Payload: h.Payload, KeepOpen: h.KeepOpen}}}
	case *listeners.HTTP:
		return &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Status: uint32(h.Status), Headers: h.Headers, Body: h.Body}}}
	case *listeners.Daytime, listeners.Daytime:
		return &pb.Handler{Kind: &pb.Handler_Daytime{Daytime: &pb.DaytimeHandler{}}}
	case *listeners.Time, listeners.Time:
		return &pb.Handler{Kind: &pb.Handler_Time{Time: &pb.TimeHandler{}}}
	case *listeners.Chargen, listeners.Chargen:
		return &pb.Handler{Kind: &pb.Handler_Chargen{Chargen: &pb.ChargenHandler{}}}
	case *listeners.Func:
		return &pb.Handler{Kind: &pb.Handler_Func{Func: &pb.FuncHandler{Name: h.Name}}}
	case *listeners.Handoff:
		return &pb.Handler{Kind: &pb.Handler_Handoff{Handoff: &pb.HandoffHandler{Path: h.Path}}}
	case *listeners.Remote:
		return &pb.Handler{Kind: &pb.Handler_Remote{Remote: remoteToPB(h)}}
	case *listeners.Forward:
		return &pb.Handler{Kind: &pb.Handler_Forward{Forward: forwardToPB(h)}}
	case *listeners.Exec:
		return &pb.Handler{Kind: &pb.Handler_Exec{Exec: execToPB(h)}}
	}
	return nil
}

func handlerFromPB(h *pb.Handler) listeners.HandlerSpec {
	switch k := h.GetKind().(type) {
	case *pb.Handler_Echo:
		return &listeners.Echo{}
	case *pb.Handler_Discard:
		return &listeners.Discard{}
	case *pb.Handler_Reply:
		return &listeners.Reply{Payload: k.Reply.GetPayload(), KeepOpen: k.Reply.GetKeepOpen()}
	case *pb.Handler_Handoff:
		return &listeners.Handoff{Path: k.Handoff.GetPath()}
	case *pb.Handler_Remote:
		return &listeners.Remote{AttachTimeout: k.Remote.GetAttachTimeout().AsDuration(), MaxPending: k.Remote.GetMaxPending()}
	case *pb.Handler_Forward:
		return forwardFromPB(k.Forward)
	case *pb.Handler_Http:
		status := int(min(k.Http.GetStatus(), math.MaxInt32))
		return &listeners.HTTP{Status: status, Headers: k.Http.GetHeaders(), Body: k.Http.GetBody()}
	case *pb.Handler_Daytime:
		return &listeners.Daytime{}
	case *pb.Handler_Time:
		return &listeners.Time{}
	case *pb.Handler_Chargen:
		return &listeners.Chargen{}
	case *pb.Handler_Func:
		return &listeners.Func{Name: k.Func.GetName()}
	case *pb.Handler_Exec:
		return execFromPB(k.Exec)
	}
	return nil // Validate says that it is missing
}

// valueToPB never fails: options are scalars.
func valueToPB(v listeners.Value) *structpb.Value {
	switch x := v.Any().(type) {
	case bool:
		return structpb.NewBoolValue(x)
	case int64:
		return structpb.NewNumberValue(float64(x))
	case string:
		return structpb.NewStringValue(x)
	default:
		return structpb.NewNullValue()
	}
}

func valuesToPB(values map[string]listeners.Value) map[string]*structpb.Value {
	if len(values) == 0 {
		return nil
	}
	out := make(map[string]*structpb.Value, len(values))
	for name, v := range values {
		out[name] = valueToPB(v)
	}
	return out
}

func valueFromPB(v *structpb.Value) (listeners.Value, error) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_NullValue:
		return listeners.Value{}, nil
	case *structpb.Value_BoolValue:
		return listeners.BoolValue(k.BoolValue), nil
	case *structpb.Value_NumberValue:
		return listeners.NumberValue(k.NumberValue)
	case *structpb.Value_StringValue:
		return listeners.StringValue(k.StringValue), nil
	default: // nil too: what was forgotten does not reset an option
		return listeners.Value{}, fmt.Errorf("must be null, true, false, a number or text")
	}
}

// valuesFromPB reports every value that cannot be one of an option.
func valuesFromPB(field string, values map[string]*structpb.Value) (map[string]listeners.Value, []*listeners.Violation) {
	out := make(map[string]listeners.Value, len(values))
	var faults []*listeners.Violation
	for name, v := range values {
		x, err := valueFromPB(v)
		if err != nil {
			faults = append(faults, &listeners.Violation{Field: field + "." + name, Message: err.Error()})
		}
		one := listeners.OptionName(name)
		if _, twice := out[one]; twice {
			faults = append(faults, &listeners.Violation{Field: field + "." + name, Message: "is there twice, as " + one + " too"})
		}
		out[one] = x
	}
	return out, faults
}

// A listenerMessage is what most messages of a listener are made of, in one piece:
// an answer may have ten thousand of them.
type listenerMessage struct {
	listener                  pb.Listener
	spec                      pb.ListenerSpec
	status                    pb.ListenerStatus
	created, updated, started timestamppb.Timestamp
	bound                     pb.SocketAddress
	bounds                    [1]*pb.SocketAddress
	listen                    [1]string
}

func infoToPB(i manager.Info) *pb.Listener { return eachToPB(&i) }

// eachToPB keeps nothing of i: see Manager.Walk.
func eachToPB(i *manager.Info) *pb.Listener {
	if i.Record == nil { // there is none
		return &pb.Listener{}
	}
	return infoIn(new(listenerMessage), i)
}

// infoIn is eachToPB, in messages that are there and have nothing in them.
func infoIn(m *listenerMessage, i *manager.Info) *pb.Listener {
	l := &m.listener
	l.Name, l.Uid, l.Labels, l.Annotations, l.Manager = listenerPrefix+i.Name, i.UID, i.Labels, i.Annotations, i.Owner
	l.Generation, l.Revision, l.Etag = i.Generation, i.Revision, i.Etag()
	l.CreateTime, l.UpdateTime = timeIn(&m.created, i.Created), timeIn(&m.updated, i.Updated)
	l.Spec, l.Status = &m.spec, &m.status
	l.Spec.DesiredState, l.Spec.Handler = desiredToPB[i.Desired], handlerToPB(i.Spec.Handler)
	l.Spec.Concurrency, l.Spec.Options = concurrencyToPB[i.Spec.Concurrency], valuesToPB(i.Spec.Options)
	st := l.Status
	st.State, st.Message, st.ActiveConnections = stateToPB[i.State], i.Message, uint64(i.Live.Active)
	st.AcceptedTotal, st.RejectedTotal = i.Stats.Accepted, i.Stats.Rejected
	st.AcceptQueue, st.AcceptQueueLimit, st.DropsTotal = i.Live.Queue.Accept, i.Live.Queue.AcceptLimit, i.Live.Queue.Drops
	st.StartTime, st.RetryTime = timeIn(&m.started, i.Started), timeToPB(i.Retry)
	st.ReceivedBytes, st.SentBytes = i.Stats.Received, i.Stats.Sent
	policyToPB(i, l)
	l.Spec.Listen = m.listen[:0]
	for _, a := range i.Spec.Listen {
		l.Spec.Listen = append(l.Spec.Listen, a.String())
	}
	st.Bound = m.bounds[:0]
	for n, a := range i.Live.Bound {
		to := &m.bound
		if n > 0 {
			to = new(pb.SocketAddress)
		}
		uri := ""
		if n < len(i.Spec.Listen) && a == i.Spec.Listen[n] {
			uri = l.Spec.Listen[n]
		} else { // port 0, most often
			uri = a.String()
		}
		st.Bound = append(st.Bound, addressIn(to, a, uri))
	}
	l.Status.Faults = faultsToPB(i.Live.Faults)
	for _, u := range i.Live.Upstreams {
		l.Status.Upstreams = append(l.Status.Upstreams, upstreamToPB(u))
	}
	for _, s := range i.Live.Sockets {
		l.Status.Sockets = append(l.Status.Sockets, socketToPB(i.Name, s))
	}
	return l
}

func notesToPB(notes []manager.Note) []*pb.Issue {
	var out []*pb.Issue
	for _, n := range notes {
		out = append(out, &pb.Issue{Code: n.Code, Field: n.Field, Message: n.Message})
	}
	return out
}
