package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// inhabited is a fake with something of everything.
func inhabited(t *testing.T) *fake {
	t.Helper()
	f := newFake(t)
	web := listener("web")
	web.Labels = map[string]string{"tier": "edge", "a": "b"}
	web.Spec.Options = map[string]*structpb.Value{"backlog": structpb.NewNumberValue(9000)}
	web.Status.ActiveConnections, web.Status.AcceptedTotal, web.Status.AcceptQueue = 1, 12, 3
	web.Status.ReceivedBytes, web.Status.SentBytes = 2048, 5<<20
	web.Status.StartTime = ago(time.Minute)
	web.Status.Sockets = []*pb.Socket{{
		Name: "sockets/1f", Listener: "listeners/web", Role: pb.Socket_ROLE_LISTENER, Fd: 7, Inode: 99,
		Local: web.GetStatus().GetBound()[0], TcpState: pb.TcpState_TCP_STATE_LISTEN, WaitsFor: []string{"readable"},
		Queue:  &pb.QueueInfo{AcceptQueue: 3, AcceptQueueLimit: 4096, Drops: 2},
		Memory: &pb.SocketMemory{ReceiveLimitBytes: 128 << 10, SendLimitBytes: 16 << 10},
	}}
	dns := listener("dns")
	dns.CreateTime = ago(50 * time.Hour)
	dns.Spec.Listen = []string{"udp://:53"}
	dns.Spec.Handler = &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{Payload: []byte("hi"), KeepOpen: true}}}
	dns.Status = &pb.ListenerStatus{State: pb.ListenerStatus_STATE_FAILED, Message: "udp://:53 is\tin use"}
	f.listeners = []*pb.Listener{web, dns}
	f.conns = []*pb.Connection{{
		Name: "connections/2a", Listener: "listeners/web", Network: pb.Network_NETWORK_TCP, State: pb.Connection_STATE_OPEN,
		Local:  web.GetStatus().GetBound()[0],
		Remote: &pb.SocketAddress{Uri: "tcp://10.0.0.7:51344"}, CreateTime: ago(3 * time.Second), LastActiveTime: ago(time.Second),
		ReceivedBytes: 2048, SentBytes: 1, ReceivedMessages: 1, Fd: 9, Inode: 101, WaitsFor: []string{"readable", "writable"},
		Queue:   &pb.QueueInfo{SendBytes: 1 << 10, UserSendBytes: 7},
		TcpInfo: &pb.TcpInfo{State: pb.TcpState_TCP_STATE_ESTABLISHED, Rtt: durationpb.New(1234567), SendMssBytes: 1460, PacingBytesPerSecond: 123456, Negotiated: []string{"sack", "wscale"}},
		Peer:    &pb.PeerCredentials{Pid: 12, Uid: 1, Gid: 2, Command: "evil\x1b[2J"},
	}}
	f.inForce = map[string]map[string]*structpb.Value{
		"listeners/web":  {"backlog": structpb.NewNumberValue(4096), "idle_timeout": structpb.NewStringValue("30s")},
		"connections/2a": {"tcp.no_delay": structpb.NewBoolValue(true)},
	}
	f.catalogue = []*pb.OptionSpec{
		{
			Name: "backlog", Type: pb.OptionSpec_TYPE_INT, Effect: pb.OptionSpec_EFFECT_LIVE, Summary: "Most that wait.",
			DefaultValue: structpb.NewNumberValue(4096), ClampedBy: "net.core.somaxconn", ClampValue: 4096, Min: new(int64(1)), Supported: true,
		},
		{
			Name: "tcp.no_delay", Type: pb.OptionSpec_TYPE_BOOL, Effect: pb.OptionSpec_EFFECT_NEW_CONNECTIONS, Summary: "Send at once.",
			KernelName: "TCP_NODELAY", Level: 6, Option: 1, Networks: []pb.Network{pb.Network_NETWORK_TCP}, Inherited: true, Supported: true,
			Capability: "CAP_NONE", DefaultValue: structpb.NewNullValue(), Max: new(int64(1)),
		},
	}
	f.levels = map[string]pb.LogLevel{"sockmgr": pb.LogLevel_LOG_LEVEL_INFO, "sockmgr.loop": pb.LogLevel_LOG_LEVEL_WARN}
	f.info = &pb.DaemonInfo{
		Version: "1.0.0", Pid: 12, InstanceId: "abc", StartTime: ago(time.Hour), Poller: "epoll", OpenFilesLimit: 1024,
		ApiVersions: []string{"sockmgr.v1"}, Control: []*pb.SocketAddress{{Uri: "unix:///s"}},
	}
	return f
}

func TestLs(t *testing.T) {
	f := inhabited(t)
	want(t, f.run(t, "ls"), 0, `
NAME  STATE    ADDRESS               HANDLER  CONNS  QUEUE   IN      OUT     AGE
web   running  tcp://127.0.0.1:8080  echo     1      3/4096  2.0KiB  5.0MiB  5m
dns   failed   udp://:53             reply    0      -       0B      0B      2d
`, "")
	same(t, "requests", f.requests(), `ListListeners {"pageSize":1000,"view":"basic"}`)
	want(t, f.run(t, "ls", "-o", "wide", "dns", "web"), 0, `
NAME  STATE    ADDRESS               HANDLER  CONNS  QUEUE   IN      OUT     AGE  UID      LABELS         FD  COOKIE  MESSAGE
dns   failed   udp://:53             reply    0      -       0B      0B      2d   uid-dns  -              -   -       udp://:53 is\tin use
web   running  tcp://127.0.0.1:8080  echo     1      3/4096  2.0KiB  5.0MiB  5m   uid-web  a=b,tier=edge  7   1f      -
`, "")
	same(t, "requests", f.requests(), `
GetListener {"name":"listeners/dns","view":"full"}
GetListener {"name":"listeners/web","view":"full"}`)
	want(t, f.run(t, "ls", "-o", "name", "--filter", "status.state = failed", "listeners/dns"), 0, "dns\n", "")
	same(t, "requests", f.requests(), `ListListeners {"pageSize":1000,"filter":"status.state = failed","view":"basic"}`)
	want(t, f.run(t, "ls", "-o", "name", "nix", "web"), 10, "web\n", "Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n")
	want(t, f.run(t, "ls", "nix"), 4, "", "Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n")
	f.listeners = nil
	want(t, f.run(t, "ls"), 0, "NAME  STATE  ADDRESS  HANDLER  CONNS  QUEUE  IN  OUT  AGE\n", "")
	want(t, f.run(t, "ls", "-o", "json"), 0, "{\n  \"listeners\": []\n}\n", "")
	want(t, f.run(t, "ls", "-o", "yaml"), 0, "listeners: []\n", "")
}

func TestLsPages(t *testing.T) {
	f := newFake(t)
	f.pageSize = 2
	var names strings.Builder
	for i := range 5 {
		f.listeners = append(f.listeners, listener(fmt.Sprint("l", i)))
		fmt.Fprintf(&names, "l%d\n", i)
	}
	want(t, f.run(t, "ls", "-o", "name"), 0, names.String(), "")
	if n := strings.Count(f.requests(), "ListListeners"); n != 3 {
		t.Errorf("%d pages", n)
	}
	_, err := pages(func(string) ([]int, string, error) { return nil, "same", nil })
	if asFailure(err).code != codes.Internal {
		t.Error(err)
	}
}

func TestInspect(t *testing.T) {
	f := inhabited(t)
	const socket = `
socket 1f
  listener             web
  descriptor (fileno)  7
  local (getsockname)  tcp://127.0.0.1:8080
  cookie               1f
  inode                99
  TCP state            listen
  waits for            readable
  backlog in force     4096
  waiting              3, at most 0 so far
  drops                2
  memory               0B of 128.0KiB to receive, 0B of 16.0KiB to send
`
	web := `
listener web
  state          running
  wanted         running
  listen         tcp://127.0.0.1:8080
  bound          tcp://127.0.0.1:8080
  handler        echo
  labels         a=b,tier=edge
  running since  2026-01-02T15:03:05Z (1m ago)
  made           2026-01-02T14:59:05Z (5m ago)
  uid            uid-web
  generation     1

traffic
  connections  1 open, 12 accepted, 0 refused
  waiting      3 of 4096
  bytes        2.0KiB in, 5.0MiB out
  drops        0
` + socket + `
options wanted
  backlog  = 9000

options in force, other than the default
  idle_timeout  = 30s
  (1 more)      at their default; -o wide shows them
`
	want(t, f.run(t, "inspect", "web"), 0, web, "")
	connection := `
connection 2a
  listener              web
  state                 open
  local (getsockname)   tcp://127.0.0.1:8080
  remote (getpeername)  tcp://10.0.0.7:51344
  peer                  pid 12 uid 1 gid 2 evil\x1b[2J
  descriptor (fileno)   9
  inode                 101
  waits for             readable, writable
  age                   3s
  idle                  1s
  received              2.0KiB in 1 message
  sent                  1B in 0 messages
  to be read            0B in the kernel, 0B in the daemon
  to be sent            1.0KiB not acknowledged, 0B of it not sent, 7B in the daemon

TCP_INFO
  state       established
  rtt         1.23ms
  send mss    1460B
  pacing      987.6kbit/s
  negotiated  sack, wscale

options in force, other than the default
  tcp.no_delay  = true
`
	for _, id := range []string{"2a", "connections/2a", "10.0.0.7:51344"} {
		want(t, f.run(t, "inspect", id), 0, connection, "")
		want(t, f.run(t, "conn", "inspect", id), 0, connection, "")
	}
	for _, id := range []string{"1f", "sockets/1f"} {
		want(t, f.run(t, "inspect", id), 0, socket, "")
	}
	want(t, f.run(t, "inspect", "listeners/dns"), 0, `
listener dns
  state       failed
  message     udp://:53 is\tin use
  wanted      running
  listen      udp://:53
  handler     reply payload=2B keep_open=true
  made        2025-12-31T13:04:05Z (2d ago)
  uid         uid-dns
  generation  1

traffic
  connections  0 open, 0 accepted, 0 refused
  bytes        0B in, 0B out
  drops        0
`, "note: options in force of listeners/dns: no listener is called dns\n")
	if got := f.run(t, "inspect", "web", "-o", "wide"); !strings.HasSuffix(got.stdout, "options in force\n  backlog       = 4096\n  idle_timeout  = 30s\n") {
		t.Error(got.stdout)
	}
	want(t, f.run(t, "inspect", "nix", "1f", "2a"), 10, strings.TrimPrefix(socket, "\n")+connection,
		"Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n")
	want(t, f.run(t, "inspect", "ff"), 4, "", "Error: no listener, connection or socket is called ff\n  try  sockctl ls; sockctl conn ls\n")
	want(t, f.run(t, "inspect", "sockets/ff"), 4, "", "Error: there is no socket ff\n  reason SOCKET_NOT_FOUND\n")
	want(t, f.run(t, "inspect", "10.0.0.7:1"), 4, "", "Error: no connection 10.0.0.7:1\n  reason CONNECTION_NOT_FOUND\n")
	got := f.run(t, "inspect", "web", "-o", "json")
	if !strings.HasPrefix(got.stdout, "{\n  \"name\": \"listeners/web\",\n") ||
		!strings.HasSuffix(got.stdout, "\n  \"optionsInForce\": {\n    \"backlog\": 4096,\n    \"idle_timeout\": \"30s\"\n  }\n}\n") {
		t.Error(got.stdout)
	}
	got = f.run(t, "inspect", "web", "dns", "-o", "yaml")
	if got.exit != 0 || strings.Count(got.stdout, "\n---\n") != 1 || !strings.HasSuffix(got.stdout, "\noptionsInForce: {}\n") {
		t.Errorf("%d %s", got.exit, got.stdout)
	}
	same(t, "stderr", got.stderr, "note: options in force of listeners/dns: no listener is called dns\n")
}
