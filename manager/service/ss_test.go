package service_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A ssLine is what ss(8) says of one socket.
type ssLine struct {
	t            *testing.T
	state        string
	recvQ, sendQ float64
	local, peer  string
	words        map[string]string // rtt:0.017/0.009, and pacing_rate 394299253656bps
	skmem        map[string]float64
	text         string
}

// ss runs ss(8) and returns the line of the socket that is open under a
// descriptor of this process.
func ss(t *testing.T, fd int32, args ...string) *ssLine {
	t.Helper()
	path, err := exec.LookPath("ss")
	if err != nil {
		t.Skip("ss (iproute2) is not installed: there is nothing to compare with")
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, append([]string{"-H", "-O"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err, stderr.String())
	}
	owner := fmt.Sprintf("pid=%d,fd=%d)", os.Getpid(), fd)
	for text := range strings.Lines(string(out)) {
		if strings.Contains(text, owner) {
			return parseSS(t, text)
		}
	}
	t.Fatalf("ss %v has no socket of %s:\n%s", args, owner, out)
	return nil
}

func parseSS(t *testing.T, text string) *ssLine {
	t.Helper()
	words := strings.Fields(text)
	l := &ssLine{t: t, words: map[string]string{}, skmem: map[string]float64{}, text: text}
	if strings.HasPrefix(words[0], "u_") { // u_str STATE Q Q PATH INODE * PEER
		l.words["inode"] = words[5]
		words = append(words[1:5:5], words[6:]...)
	}
	l.state, l.recvQ, l.sendQ, l.local, l.peer = words[0], ssNumber(t, words[1]), ssNumber(t, words[2]), words[3], words[4]
	for i, word := range words[5:] {
		key, value, ok := strings.Cut(word, ":")
		switch {
		case ok && key == "skmem":
			for item := range strings.SplitSeq(strings.Trim(value, "()"), ",") {
				name := strings.TrimRight(item, "0123456789")
				l.skmem[name] = ssNumber(t, item[len(name):])
			}
		case ok:
			l.words[key] = value
		case i > 0:
			l.words[words[5+i-1]] = word
		}
	}
	return l
}

// ssNumber reads what a value begins with: 204, 0.017, 8bps, 12ms.
func ssNumber(t *testing.T, s string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(strings.TrimRight(s, "bpms"), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// is compares with what we say.
func (l *ssLine) is(what string, got, want any) {
	l.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		l.t.Errorf("%s: we say %v, ss says %v:\n%s", what, got, want, l.text)
	}
}

// within compares with what we said before and say after: it may have moved.
// What ss leaves out is 0, or so little that it rounds to that.
func (l *ssLine) within(what string, before, ss, after float64) {
	l.t.Helper()
	const exact = 1e-6
	if ss < min(before, after)*(1-exact)-exact || ss > max(before, after)*(1+exact)+exact {
		l.t.Errorf("%s: we say %v, then %v; ss says %v in between:\n%s", what, before, after, ss, l.text)
	}
}

// fact is a number of ss; the second one of a/b or a,b for part 1.
func (l *ssLine) fact(key string, part int) float64 {
	l.t.Helper()
	value, ok := l.words[key]
	if !ok {
		return 0
	}
	parts := strings.FieldsFunc(value, func(r rune) bool { return r == '/' || r == ',' })
	return ssNumber(l.t, parts[part])
}

// has compares what all sockets have.
func (l *ssLine) has(cookie string, inode uint64, before, after *pb.SocketMemory) {
	l.t.Helper()
	if sk, ok := l.words["sk"]; ok {
		l.is("cookie", cookie, sk)
	}
	if ino, ok := l.words["inode"]; ok { // ino: of a Unix socket is its file's
		l.is("inode", inode, ino)
	} else {
		l.is("inode", inode, l.words["ino"])
	}
	for name, f := range map[string]func(*pb.SocketMemory) uint32{
		"r": (*pb.SocketMemory).GetReceiveAllocBytes, "rb": (*pb.SocketMemory).GetReceiveLimitBytes,
		"t": (*pb.SocketMemory).GetSendAllocBytes, "tb": (*pb.SocketMemory).GetSendLimitBytes,
		"f": (*pb.SocketMemory).GetForwardAllocBytes, "w": (*pb.SocketMemory).GetSendQueuedBytes,
		"o": (*pb.SocketMemory).GetOptionBytes, "bl": (*pb.SocketMemory).GetBacklogBytes, "d": (*pb.SocketMemory).GetDrops,
	} {
		said, ok := l.skmem[name]
		if !ok {
			l.t.Errorf("ss has no skmem %s:\n%s", name, l.text)
		}
		l.within("skmem "+name, float64(f(before)), said, float64(f(after)))
	}
}

func endpointOf(a *pb.SocketAddress) string {
	if a.GetPath() != "" {
		return a.GetPath()
	}
	return net.JoinHostPort(a.GetIp(), portText(a))
}

// tcpFacts is what both we and ss say of a connection: the name that ss has,
// which part of its value it is, and ours in the same unit.
var tcpFacts = []struct {
	name string
	part int
	ours func(*pb.TcpInfo) float64
}{
	{"rtt", 0, func(i *pb.TcpInfo) float64 { return ms(i.GetRtt()) }},
	{"rtt", 1, func(i *pb.TcpInfo) float64 { return ms(i.GetRttVariance()) }},
	{"minrtt", 0, func(i *pb.TcpInfo) float64 { return ms(i.GetMinRtt()) }},
	{"rto", 0, func(i *pb.TcpInfo) float64 { return ms(i.GetRto()) }},
	{"ato", 0, func(i *pb.TcpInfo) float64 { return ms(i.GetAto()) }},
	{"mss", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetSendMssBytes()) }},
	{"rcvmss", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetReceiveMssBytes()) }},
	{"advmss", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetAdvertisedMssBytes()) }},
	{"pmtu", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetPathMtuBytes()) }},
	{"cwnd", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetCongestionWindow()) }},
	{"wscale", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetSendWindowScale()) }},
	{"wscale", 1, func(i *pb.TcpInfo) float64 { return float64(i.GetReceiveWindowScale()) }},
	{"bytes_sent", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetBytesSent()) }},
	{"bytes_acked", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetBytesAcked()) }},
	{"bytes_received", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetBytesReceived()) }},
	{"bytes_retrans", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetBytesRetransmitted()) }},
	{"segs_out", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetSegmentsOut()) }},
	{"segs_in", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetSegmentsIn()) }},
	{"data_segs_out", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetDataSegmentsOut()) }},
	{"data_segs_in", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetDataSegmentsIn()) }},
	{"unacked", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetUnacked()) }},
	{"retrans", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetRetransmitting()) }},
	{"retrans", 1, func(i *pb.TcpInfo) float64 { return float64(i.GetTotalRetransmits()) }},
	{"lost", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetLost()) }},
	{"sacked", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetSacked()) }},
	{"notsent", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetNotSentBytes()) }},
	{"delivered", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetDelivered()) }},
	{"snd_wnd", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetSendWindowBytes()) }},
	{"rcv_space", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetReceiveSpaceBytes()) }},
	{"rcv_ssthresh", 0, func(i *pb.TcpInfo) float64 { return float64(i.GetReceiveSlowStartThresholdBytes()) }},
	{"pacing_rate", 0, func(i *pb.TcpInfo) float64 { return 8 * float64(i.GetPacingBytesPerSecond()) }},
	{"delivery_rate", 0, func(i *pb.TcpInfo) float64 { return 8 * float64(i.GetDeliveryBytesPerSecond()) }},
	{"lastsnd", 0, func(i *pb.TcpInfo) float64 { return ms(i.GetLastDataSent()) }},
	{"lastrcv", 0, func(i *pb.TcpInfo) float64 { return ms(i.GetLastDataReceived()) }},
	{"lastack", 0, func(i *pb.TcpInfo) float64 { return ms(i.GetLastAckReceived()) }},
}

func ms(d *durationpb.Duration) float64 { return float64(d.AsDuration().Microseconds()) / 1000 }

// connection reads a connection in full.
func (d *daemon) connection(name string) *pb.Connection {
	d.t.Helper()
	resp, err := d.connections.GetConnection(d.ctx, &pb.GetConnectionRequest{Name: name})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetConnection()
}

// agrees compares a connection with what ss says of it.
func (d *daemon) agrees(t *testing.T, name string, args ...string) (*pb.Connection, *ssLine) {
	t.Helper()
	before := d.connection(name)
	l := ss(t, before.GetFd(), args...)
	after := d.connection(name)
	l.is("state", "ESTAB", l.state)
	l.is("local", endpointOf(after.GetLocal()), l.local)
	l.within("Recv-Q", float64(before.GetQueue().GetReceiveBytes()), l.recvQ, float64(after.GetQueue().GetReceiveBytes()))
	l.within("Send-Q", float64(before.GetQueue().GetSendBytes()), l.sendQ, float64(after.GetQueue().GetSendBytes()))
	l.has(strings.TrimPrefix(after.GetName(), "connections/"), after.GetInode(), before.GetMemory(), after.GetMemory())
	if after.GetTcpInfo() == nil {
		return after, l
	}
	l.is("peer", endpointOf(after.GetRemote()), l.peer)
	for _, f := range tcpFacts {
		if strings.HasPrefix(f.name, "last") && after.GetQueue().GetSendBytes() > 0 {
			continue // the kernel probes a window that is closed: they grow, and begin anew
		}
		l.within(f.name, f.ours(before.GetTcpInfo()), l.fact(f.name, f.part), f.ours(after.GetTcpInfo()))
	}
	info := after.GetTcpInfo()
	for _, word := range []string{" " + info.GetCongestion() + " ", " ts ", " sack "} {
		if !strings.Contains(l.text, word) {
			t.Errorf("ss does not say%s:\n%s", word, l.text)
		}
	}
	l.is("app_limited", info.GetDeliveryAppLimited(), strings.Contains(l.text, " app_limited"))
	return after, l
}

// listens compares the i-th socket of web with what ss says of it.
func (d *daemon) listens(t *testing.T, i int, args ...string) *ssLine {
	t.Helper()
	before := d.get("web").GetStatus().GetSockets()[i]
	l := ss(t, before.GetFd(), args...)
	after := d.get("web").GetStatus().GetSockets()[i]
	l.is("local", endpointOf(after.GetLocal()), l.local)
	l.has(strings.TrimPrefix(after.GetName(), "sockets/"), after.GetInode(), before.GetMemory(), after.GetMemory())
	if after.GetQueue().GetAcceptQueueLimit() > 0 {
		l.is("state", "LISTEN", l.state)
		l.is("waiting", after.GetQueue().GetAcceptQueue(), l.recvQ)
		l.is("limit", after.GetQueue().GetAcceptQueueLimit(), l.sendQ)
	}
	return l
}

// What we say of listeners and connections is what ss says of the same sockets.
func TestAgreesWithSS(t *testing.T) {
	d := serve(t)
	dir := t.TempDir()
	spec := echoSpec("tcp4://127.0.0.1:0", "tcp6://[::1]:0", "unix://"+filepath.Join(dir, "s"), "udp4://127.0.0.1:0", "udp6://[::1]:0")
	spec.Options = map[string]*structpb.Value{"backlog": structpb.NewNumberValue(7)}
	bound := d.createSpec("web", spec).GetStatus().GetBound()
	conns := make([]net.Conn, 3)
	for i := range conns {
		conns[i] = ping(t, bound[i])
		for range 10 {
			exchange(t, conns[i])
		}
	}
	for i := range 2 { // both versions of IP
		d.listens(t, i, "-tlnpemi")
		eventually(t, func() bool { return d.connection(conns[i].LocalAddr().String()).GetTcpInfo().GetUnacked() == 0 }) // nothing moves now
		c, _ := d.agrees(t, conns[i].LocalAddr().String(), "-tnpemi")
		if c.GetTcpInfo().GetBytesReceived() != 44 || c.GetTcpInfo().GetBytesAcked() != 44 {
			t.Errorf("%v", c.GetTcpInfo())
		}
	}
	d.listens(t, 2, "-xlnpem")
	list, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: "network = unix"})
	if err != nil || len(list.GetConnections()) != 1 {
		t.Fatal(list, err)
	}
	d.agrees(t, list.GetConnections()[0].GetName(), "-xnpem")
	for i := 3; i < 5; i++ {
		d.listens(t, i, "-ulnpem")
	}

	// Clients that wait to be accepted.
	if _, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{
		Target: "listeners/web", Options: map[string]*structpb.Value{"max_connections": structpb.NewNumberValue(1)},
	}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for i := range 3 {
			network, address := "tcp", endpointOf(bound[i])
			if i == 2 {
				network = "unix"
			}
			c, err := net.Dial(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
	for i, args := range []string{"-tlnpemi", "-tlnpemi", "-xlnpem"} {
		if l := d.listens(t, i, args); l.recvQ != 3 || l.sendQ != 7 {
			t.Errorf("%v of %v wait", l.recvQ, l.sendQ)
		}
	}

	// A client that does not take what it is sent.
	big := d.createSpec("big", &pb.ListenerSpec{
		Listen: []string{"tcp4://127.0.0.1:0"}, Options: map[string]*structpb.Value{"send_buffer_bytes": structpb.NewStringValue("64KiB")},
		Handler: &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{Payload: make([]byte, 1<<19), KeepOpen: true}}},
	}).GetStatus().GetBound()[0]
	small := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10) })
	}}
	slow, err := small.DialContext(d.ctx, "tcp", endpointOf(big))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	eventually(t, func() bool {
		c, err := d.connections.GetConnection(d.ctx, &pb.GetConnectionRequest{Name: slow.LocalAddr().String()})
		return err == nil && c.GetConnection().GetQueue().GetUnsentBytes() > 0 && c.GetConnection().GetTcpInfo().GetUnacked() == 0
	})
	c, l := d.agrees(t, slow.LocalAddr().String(), "-tnpemi")
	if l.sendQ == 0 || c.GetQueue().GetUserSendBytes() == 0 || c.GetTcpInfo().GetNotSentBytes() == 0 {
		t.Errorf("%v\n%s", c, l.text)
	}
}
