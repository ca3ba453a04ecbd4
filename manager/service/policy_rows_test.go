package service

import (
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager/access"
)

// A policyRow is what a policy has to say of a method: requests that are inside
// of it, and others with the list that is against each. Methods that only read,
// or are about a caller's own sockets, have nothing outside.
type policyRow struct {
	inside  []proto.Message
	outside map[string][]proto.Message
}

// testPolicy is that of the matrix.
func testPolicy() *access.Policy {
	return &access.Policy{
		Names: []string{"web-"}, Addresses: []string{"127.0.0.0/8", "/run/web/"}, Ports: []string{"0", "8000-8999"},
		Handlers: []string{"echo", "forward", "exec", "handoff"}, Programs: []string{"/bin/cat"}, Upstreams: []string{"10.0.0.0/8", "db.example.com", "/run/web/"},
	}
}

func specOf(uri string, h *pb.Handler) *pb.ListenerSpec {
	if h == nil {
		h = &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}
	}
	return &pb.ListenerSpec{Listen: []string{uri}, Handler: h}
}

func forwardHandler(uris ...string) *pb.Handler {
	f := &pb.ForwardHandler{}
	for _, uri := range uris {
		f.Upstreams = append(f.Upstreams, &pb.Upstream{Address: uri})
	}
	return &pb.Handler{Kind: &pb.Handler_Forward{Forward: f}}
}

// specs are wanted listeners, inside and by the list that is against them.
func specs() (inside []*pb.ListenerSpec, outside map[string][]*pb.ListenerSpec) {
	const good = "tcp://127.0.0.1:8000"
	program := func(name string) *pb.Handler {
		return &pb.Handler{Kind: &pb.Handler_Exec{Exec: &pb.ExecHandler{Command: []string{name, "/bin/cat"}}}}
	}
	handoff := func(path string) *pb.Handler {
		return &pb.Handler{Kind: &pb.Handler_Handoff{Handoff: &pb.HandoffHandler{Path: path}}}
	}
	route := &pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{
		Upstreams: []*pb.Upstream{{Address: "tcp://10.0.0.1:1"}},
		Routes:    []*pb.Route{{ServerNames: []string{"x"}, Upstreams: []*pb.Upstream{{Address: "tcp://192.0.2.1:1"}}}},
	}}}
	inside = []*pb.ListenerSpec{
		specOf(good, nil), specOf("tcp://127.9.9.9:0", nil), specOf("unix:///run/web/a", nil), specOf(good, forwardHandler("tcp://10.9.9.9:1", "tcp://db.example.com:5432")),
		specOf(good, program("/bin/cat")), specOf(good, handoff("/run/web/h")),
		{},
	}
	outside = map[string][]*pb.ListenerSpec{
		"addresses": {specOf("tcp://0.0.0.0:8000", nil), specOf("tcp://:8000", nil), specOf("unix:///run/other", nil), {Listen: []string{good, "tcp://[::1]:8000"}}},
		"ports":     {specOf("tcp://127.0.0.1:80", nil)},
		"handlers":  {specOf(good, &pb.Handler{Kind: &pb.Handler_Discard{Discard: &pb.DiscardHandler{}}})},
		"programs":  {specOf(good, program("/bin/sh"))},
		"upstreams": {specOf(good, forwardHandler("tcp://10.0.0.1:1", "tcp://169.254.169.254:80")), specOf(good, forwardHandler("tcp://example.com:1")), specOf(good, handoff("/run/h")), specOf(good, route)},
	}
	return inside, outside
}

// specRow makes a row of requests about listeners that say what those would be.
func specRow(request func(name string, s *pb.ListenerSpec) proto.Message) policyRow {
	inside, outside := specs()
	row := policyRow{outside: map[string][]proto.Message{"names": {request("db", inside[0]), request("web", inside[0])}}}
	for _, s := range inside {
		row.inside = append(row.inside, request("web-1", s))
	}
	for list, some := range outside {
		for _, s := range some {
			row.outside[list] = append(row.outside[list], request("web-1", s))
		}
	}
	return row
}

// nameRow makes a row of requests that name a listener.
func nameRow(request func(name string) proto.Message) policyRow {
	return policyRow{
		inside:  []proto.Message{request("listeners/web-1"), request("web-2")},
		outside: map[string][]proto.Message{"names": {request("listeners/db"), request("db")}},
	}
}

func own(m proto.Message) policyRow { return policyRow{inside: []proto.Message{m}} }

// policyRows has a row of every method.
func policyRows(tryIn, tryOut, unbound string) map[string]policyRow {
	listed := func(name string, s *pb.ListenerSpec) *pb.Listener { return &pb.Listener{Name: name, Spec: s} }
	address := func(list string, request func(uri string) proto.Message, good, bad string) policyRow {
		return policyRow{inside: []proto.Message{request(good)}, outside: map[string][]proto.Message{list: {request(bad)}}}
	}
	return map[string]policyRow{
		"ListenerService/CreateListener": specRow(func(name string, s *pb.ListenerSpec) proto.Message {
			return &pb.CreateListenerRequest{ListenerId: name, Listener: listed("", s)}
		}),
		"ListenerService/UpdateListener": specRow(func(name string, s *pb.ListenerSpec) proto.Message {
			return &pb.UpdateListenerRequest{Listener: listed("listeners/"+name, s)}
		}),
		"ListenerService/ApplyListeners": specRow(func(name string, s *pb.ListenerSpec) proto.Message {
			return &pb.ApplyListenersRequest{Listeners: []*pb.Listener{listed("web-0", nil), listed(name, s)}}
		}),
		"ListenerService/GetListener":    own(&pb.GetListenerRequest{Name: "db"}),
		"ListenerService/ListListeners":  own(&pb.ListListenersRequest{}),
		"ListenerService/WatchListeners": own(&pb.WatchListenersRequest{}),
		"ListenerService/DeleteListener": nameRow(func(n string) proto.Message { return &pb.DeleteListenerRequest{Name: n} }),
		"ListenerService/StartListener":  nameRow(func(n string) proto.Message { return &pb.StartListenerRequest{Name: n} }),
		"ListenerService/StopListener":   nameRow(func(n string) proto.Message { return &pb.StopListenerRequest{Name: n} }),
		"ListenerService/PauseListener":  nameRow(func(n string) proto.Message { return &pb.PauseListenerRequest{Name: n} }),
		"ListenerService/ResumeListener": nameRow(func(n string) proto.Message { return &pb.ResumeListenerRequest{Name: n} }),
		"ListenerService/DrainListener":  nameRow(func(n string) proto.Message { return &pb.DrainListenerRequest{Name: n} }),

		"ConnectionService/GetConnection":    own(&pb.GetConnectionRequest{}),
		"ConnectionService/ListConnections":  own(&pb.ListConnectionsRequest{}),
		"ConnectionService/WatchConnections": own(&pb.WatchConnectionsRequest{}),
		"ConnectionService/CloseConnections": own(&pb.CloseConnectionsRequest{}), // what it is about is known late

		"TuningService/ListOptions": own(&pb.ListOptionsRequest{}),
		"TuningService/GetOptions":  own(&pb.GetOptionsRequest{}),
		"TuningService/SetOptions": {
			inside:  []proto.Message{&pb.SetOptionsRequest{Target: "listeners/web-1"}, &pb.SetOptionsRequest{Target: "web-2"}, &pb.SetOptionsRequest{Target: "sockets/1"}},
			outside: map[string][]proto.Message{"names": {&pb.SetOptionsRequest{Target: "listeners/db"}, &pb.SetOptionsRequest{Target: "db"}}},
		},
		"TuningService/ConfirmOptions": {
			inside:  []proto.Message{&pb.ConfirmOptionsRequest{ChangeId: tryIn}},
			outside: map[string][]proto.Message{"names": {&pb.ConfirmOptionsRequest{ChangeId: tryOut}}},
		},
		"EventService/ListEvents":     own(&pb.ListEventsRequest{}),
		"EventService/WatchEvents":    own(&pb.WatchEventsRequest{}),
		"StatsService/GetStats":       own(&pb.GetStatsRequest{}),
		"StatsService/WatchStats":     own(&pb.WatchStatsRequest{}),
		"StatsService/ResetPeaks":     own(&pb.ResetPeaksRequest{}), // late too
		"DaemonService/GetDaemonInfo": own(&pb.GetDaemonInfoRequest{}), "DaemonService/WhoAmI": own(&pb.WhoAmIRequest{}),
		"DaemonService/Diagnose":     own(&pb.DiagnoseRequest{}),
		"DaemonService/GetLogLevels": own(&pb.GetLogLevelsRequest{}), "DaemonService/SetLogLevel": own(&pb.SetLogLevelRequest{}),
		"DaemonService/ShutdownDaemon": own(&pb.ShutdownDaemonRequest{}), "DaemonService/Upgrade": own(&pb.UpgradeRequest{}),

		"SocketService/CreateSocket": own(&pb.CreateSocketRequest{}), "SocketService/GetSocket": own(&pb.GetSocketRequest{}),
		"SocketService/ListSockets": own(&pb.ListSocketsRequest{}),
		"SocketService/Bind": address("addresses", func(uri string) proto.Message { return &pb.BindRequest{Address: uri} },
			"udp://127.0.0.1:8500", "udp://192.0.2.1:8500"),
		"SocketService/Listen": {
			inside:  []proto.Message{&pb.ListenRequest{Name: "sockets/nosuch"}},
			outside: map[string][]proto.Message{"addresses": {&pb.ListenRequest{Name: unbound}}},
		},
		"SocketService/Accept": {
			inside:  []proto.Message{&pb.AcceptRequest{Name: "listeners/web-1"}, &pb.AcceptRequest{Name: "sockets/1"}},
			outside: map[string][]proto.Message{"names": {&pb.AcceptRequest{Name: "listeners/db"}}},
		},
		"SocketService/Connect": address("upstreams", func(uri string) proto.Message { return &pb.ConnectRequest{Address: uri} }, "tcp://10.1.1.1:1", "tcp://127.0.0.1:1"),
		"SocketService/SendTo":  address("upstreams", func(uri string) proto.Message { return &pb.SendToRequest{Address: uri} }, "udp://10.1.1.1:1", "udp://169.254.169.254:1"),
		"SocketService/Send":    own(&pb.SendRequest{}), "SocketService/Recv": own(&pb.RecvRequest{}), "SocketService/RecvFrom": own(&pb.RecvFromRequest{}),
		"SocketService/SetTimeout": own(&pb.SetTimeoutRequest{}), "SocketService/Poll": own(&pb.PollRequest{}), "SocketService/Shutdown": own(&pb.ShutdownRequest{}),
		"SocketService/CloseSocket": own(&pb.CloseSocketRequest{}), "SocketService/Stream": own(&pb.StreamRequest{}),
	}
}
