package service_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// sock makes a socket and returns its name.
func (d *daemon) sock(n pb.Network) string {
	d.t.Helper()
	resp, err := d.sockets.CreateSocket(d.ctx, &pb.CreateSocketRequest{Network: n})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetSocket().GetName()
}

// bound makes a socket that is bound, and listens if it is for connections.
func (d *daemon) bound(n pb.Network, uri string) (string, *pb.SocketAddress) {
	d.t.Helper()
	name := d.sock(n)
	resp, err := d.sockets.Bind(d.ctx, &pb.BindRequest{Name: name, Address: uri})
	if err != nil {
		d.t.Fatal(err)
	}
	if n == pb.Network_NETWORK_TCP || n == pb.Network_NETWORK_UNIX || n == pb.Network_NETWORK_UNIXPACKET {
		if _, err := d.sockets.Listen(d.ctx, &pb.ListenRequest{Name: name}); err != nil {
			d.t.Fatal(err)
		}
	}
	return name, resp.GetLocal()
}

// joined is a connection between two sockets of the client.
func (d *daemon) joined() (a, b string) {
	d.t.Helper()
	server, addr := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	a = d.sock(pb.Network_NETWORK_TCP)
	if _, err := d.sockets.Connect(d.ctx, &pb.ConnectRequest{Name: a, Address: addr.GetUri()}); err != nil {
		d.t.Fatal(err)
	}
	b = d.accept(server)
	d.close(server)
	return a, b
}

func (d *daemon) accept(name string) string {
	d.t.Helper()
	resp, err := d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: name})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetSocket().GetName()
}

func (d *daemon) close(names ...string) {
	d.t.Helper()
	for _, name := range names {
		if _, err := d.sockets.CloseSocket(d.ctx, &pb.CloseSocketRequest{Name: name}); err != nil {
			d.t.Error(err)
		}
	}
}

func (d *daemon) send(name, text string) {
	d.t.Helper()
	resp, err := d.sockets.Send(d.ctx, &pb.SendRequest{Name: name, Payload: []byte(text), All: true})
	if err != nil || int(resp.GetSent()) != len(text) {
		d.t.Fatal(resp, err)
	}
}

func (d *daemon) recv(name string) string {
	d.t.Helper()
	resp, err := d.sockets.Recv(d.ctx, &pb.RecvRequest{Name: name})
	if err != nil {
		d.t.Fatal(err)
	}
	return string(resp.GetPayload())
}

func (d *daemon) timeout(name string, timeout time.Duration) {
	d.t.Helper()
	r := &pb.SetTimeoutRequest{Name: name}
	if timeout >= 0 {
		r.Timeout = durationpb.New(timeout)
	}
	if _, err := d.sockets.SetTimeout(d.ctx, r); err != nil {
		d.t.Fatal(err)
	}
}

// A server, a client and all calls between them, for each network with
// connections.
func TestSocketCalls(t *testing.T) {
	d := serve(t)
	dir := t.TempDir()
	for n, uri := range map[pb.Network]string{
		pb.Network_NETWORK_TCP: "tcp://127.0.0.1:0", pb.Network_NETWORK_UNIX: "unix://" + filepath.Join(dir, "s"),
		pb.Network_NETWORK_UNIXPACKET: "unixpacket://@sockmgr-test-packets",
	} {
		server, addr := d.bound(n, uri)
		client := d.sock(n)
		resp, err := d.sockets.Connect(d.ctx, &pb.ConnectRequest{Name: client, Address: addr.GetUri()})
		if err != nil {
			t.Fatal(err)
		}
		if s := resp.GetSocket(); s.GetRole() != pb.Socket_ROLE_OUTBOUND || s.GetRemote().GetUri() != addr.GetUri() {
			t.Errorf("connected: %v", s)
		}
		accepted, err := d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: server})
		if err != nil {
			t.Fatal(err)
		}
		s := accepted.GetSocket()
		if s.GetRole() != pb.Socket_ROLE_ACCEPTED || s.GetFd() <= 0 || s.GetLocal().GetUri() != addr.GetUri() ||
			s.GetRemote().GetUri() != resp.GetSocket().GetLocal().GetUri() && n == pb.Network_NETWORK_TCP {
			t.Errorf("accepted: %v", s)
		}
		d.send(client, "hello")
		peeked, err := d.sockets.Recv(d.ctx, &pb.RecvRequest{Name: s.GetName(), MaxBytes: 2, Peek: true})
		if err != nil || string(peeked.GetPayload()) != "he" {
			t.Errorf("%v %v", peeked, err)
		}
		if got := d.recv(s.GetName()); got != "hello" {
			t.Errorf("%q", got)
		}
		if _, err := d.sockets.Shutdown(d.ctx, &pb.ShutdownRequest{Name: client, Write: true}); err != nil {
			t.Error(err)
		}
		if got := d.recv(s.GetName()); got != "" {
			t.Errorf("after the end: %q", got)
		}
		d.send(s.GetName(), "bye")
		if got := d.recv(client); got != "bye" {
			t.Errorf("%q", got)
		}
		d.close(client, s.GetName(), server)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("%v stay behind", left)
	}
}

// sendall waits until the peer has made room; send returns what there was room
// for.
func TestSendAll(t *testing.T) {
	d := serve(t)
	a, b := d.joined()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	for range 16 {                                         // more than buffers hold: the kernel stops taking
		d.timeout(a, 0)
		resp, err := d.sockets.Send(d.ctx, &pb.SendRequest{Name: a, Payload: big})
		if err != nil {
			wantErrno(t, err, codes.FailedPrecondition, "SOCKET_CALL_FAILED", "EAGAIN", "11")
			break
		}
		if resp.GetSent() == 0 || int(resp.GetSent()) > len(big) {
			t.Fatal(resp)
		}
	}
	d.timeout(a, 10*time.Millisecond)
	_, err := d.sockets.Send(d.ctx, &pb.SendRequest{Name: a, Payload: big, All: true})
	if meta := wantErrno(t, err, codes.DeadlineExceeded, "TIMED_OUT", "ETIMEDOUT", "110"); meta["sent"] == "" {
		t.Errorf("it does not say how many bytes are gone: %v", meta)
	}
	d.timeout(a, -1)
	sent := make(chan error, 1)
	go func() {
		_, err := d.sockets.Send(d.ctx, &pb.SendRequest{Name: a, Payload: big, All: true})
		sent <- err
	}()
	for done := false; !done; {
		select {
		case err := <-sent:
			if err != nil {
				t.Error(err)
			}
			done = true
		default:
			d.recv(b)
		}
	}
	d.close(a, b)
}

// Datagrams come with both addresses, and say whether they were cut.
func TestDatagrams(t *testing.T) {
	d := serve(t)
	server, addr := d.bound(pb.Network_NETWORK_UDP, "udp://0.0.0.0:0")
	client, from := d.bound(pb.Network_NETWORK_UDP, "udp://127.0.0.1:0")
	to := fmt.Sprintf("udp://127.0.0.2:%d", addr.GetPort())
	for _, text := range []string{"first", "the second"} {
		resp, err := d.sockets.SendTo(d.ctx, &pb.SendToRequest{Name: client, Payload: []byte(text), Address: to})
		if err != nil || int(resp.GetSent()) != len(text) {
			t.Fatal(resp, err)
		}
	}
	resp, err := d.sockets.RecvFrom(d.ctx, &pb.RecvFromRequest{Name: server, MaxBytes: 5, MaxDatagrams: 10})
	if err != nil || len(resp.GetDatagrams()) != 2 {
		t.Fatal(resp, err)
	}
	for i, want := range []string{"first", "the s"} {
		g := resp.GetDatagrams()[i]
		if string(g.GetPayload()) != want || g.GetTruncated() != (i == 1) || g.GetRemote().GetUri() != from.GetUri() || g.GetLocal().GetUri() != to {
			t.Errorf("%d: %v, want from %s to %s", i, g, from.GetUri(), to)
		}
	}
	_, err = d.sockets.SendTo(d.ctx, &pb.SendToRequest{Name: client, Payload: make([]byte, 66_000), Address: to})
	wantErrno(t, err, codes.FailedPrecondition, "SOCKET_CALL_FAILED", "EMSGSIZE", "90")
	d.close(server, client)

	unixServer, path := d.bound(pb.Network_NETWORK_UNIXGRAM, "unixgram://"+filepath.Join(t.TempDir(), "d"))
	unixClient := d.sock(pb.Network_NETWORK_UNIXGRAM)
	if _, err := d.sockets.SendTo(d.ctx, &pb.SendToRequest{Name: unixClient, Payload: []byte("x"), Address: path.GetUri()}); err != nil {
		t.Fatal(err)
	}
	resp, err = d.sockets.RecvFrom(d.ctx, &pb.RecvFromRequest{Name: unixServer})
	if err != nil || string(resp.GetDatagrams()[0].GetPayload()) != "x" || resp.GetDatagrams()[0].GetRemote() != nil {
		t.Error(resp, err)
	}
	d.close(unixServer, unixClient)
}

// wantErrno is wantError of a system call.
func wantErrno(t *testing.T, err error, code codes.Code, reason, errno, number string) map[string]string {
	t.Helper()
	meta := wantError(t, err, code, reason)
	if meta["errno"] != errno || meta["errno_number"] != number {
		t.Errorf("errno %s %s, want %s %s: %v", meta["errno"], meta["errno_number"], errno, number, err)
	}
	return meta
}

// What a client does wrong is answered with the kernel's errno.
func TestSocketErrnos(t *testing.T) {
	d := serve(t)
	server, addr := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	a, b := d.joined()
	v4, err := d.sockets.CreateSocket(d.ctx, &pb.CreateSocketRequest{Network: pb.Network_NETWORK_TCP, IpVersion: 4})
	if err != nil {
		t.Fatal(err)
	}
	fresh, udp := v4.GetSocket().GetName(), d.sock(pb.Network_NETWORK_UDP)
	closed := d.sock(pb.Network_NETWORK_TCP)
	d.close(closed)
	s := d.sockets
	const failed, invalid = "SOCKET_CALL_FAILED", "SPEC_INVALID"
	for what, c := range map[string]struct {
		call   func() error
		code   codes.Code
		reason string
		errno  string
		number string
	}{
		"recv on a listening socket": {func() error { _, err := s.Recv(d.ctx, &pb.RecvRequest{Name: server}); return err }, codes.FailedPrecondition, failed, "ENOTCONN", "107"},
		"send on a listening socket": {func() error {
			_, err := s.Send(d.ctx, &pb.SendRequest{Name: server, Payload: []byte("x")})
			return err
		}, codes.FailedPrecondition, failed, "EPIPE", "32"},
		"accept on a connected one": {func() error { _, err := s.Accept(d.ctx, &pb.AcceptRequest{Name: a}); return err }, codes.FailedPrecondition, failed, "EINVAL", "22"},
		"accept on datagrams":       {func() error { _, err := s.Accept(d.ctx, &pb.AcceptRequest{Name: udp}); return err }, codes.FailedPrecondition, failed, "ENOTSUP", "95"},
		"a closed socket":           {func() error { _, err := s.Recv(d.ctx, &pb.RecvRequest{Name: closed}); return err }, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9"},
		"closed twice":              {func() error { _, err := s.CloseSocket(d.ctx, &pb.CloseSocketRequest{Name: closed}); return err }, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9"},
		"no socket at all":          {func() error { _, err := s.Recv(d.ctx, &pb.RecvRequest{Name: "sockets/zz"}); return err }, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9"},
		"bind twice": {func() error {
			_, err := s.Bind(d.ctx, &pb.BindRequest{Name: server, Address: "tcp://127.0.0.1:0"})
			return err
		}, codes.FailedPrecondition, failed, "EINVAL", "22"},
		"bind to what is taken": {func() error {
			_, err := s.Bind(d.ctx, &pb.BindRequest{Name: fresh, Address: addr.GetUri()})
			return err
		}, codes.FailedPrecondition, "ADDRESS_IN_USE", "EADDRINUSE", "98"},
		"bind to what is not ours": {func() error {
			_, err := s.Bind(d.ctx, &pb.BindRequest{Name: fresh, Address: "tcp://192.0.2.1:0"})
			return err
		}, codes.FailedPrecondition, "ADDRESS_NOT_AVAILABLE", "EADDRNOTAVAIL", "99"},
		"the wrong family": {func() error {
			_, err := s.Connect(d.ctx, &pb.ConnectRequest{Name: fresh, Address: "tcp://[::1]:9"})
			return err
		}, codes.FailedPrecondition, failed, "EAFNOSUPPORT", "97"},
		"the wrong protocol": {func() error {
			_, err := s.Connect(d.ctx, &pb.ConnectRequest{Name: fresh, Address: "udp://127.0.0.1:9"})
			return err
		}, codes.FailedPrecondition, failed, "EPROTOTYPE", "91"},
		"no address": {func() error {
			_, err := s.Connect(d.ctx, &pb.ConnectRequest{Name: fresh, Address: "127.0.0.1:9"})
			return err
		}, codes.InvalidArgument, invalid, "EINVAL", "22"},
		"connected twice": {func() error {
			_, err := s.Connect(d.ctx, &pb.ConnectRequest{Name: a, Address: addr.GetUri()})
			return err
		}, codes.FailedPrecondition, failed, "EISCONN", "106"},
		"listen on datagrams": {func() error { _, err := s.Listen(d.ctx, &pb.ListenRequest{Name: udp}); return err }, codes.FailedPrecondition, failed, "ENOTSUP", "95"},
		"shutdown of what is not connected": {func() error {
			_, err := s.Shutdown(d.ctx, &pb.ShutdownRequest{Name: fresh, Read: true, Write: true})
			return err
		}, codes.FailedPrecondition, failed, "ENOTCONN", "107"},
		"shutdown of nothing": {func() error { _, err := s.Shutdown(d.ctx, &pb.ShutdownRequest{Name: a}); return err }, codes.InvalidArgument, invalid, "EINVAL", "22"},
		"too large a payload": {func() error {
			_, err := s.Send(d.ctx, &pb.SendRequest{Name: a, Payload: make([]byte, 1<<20+1)})
			return err
		}, codes.InvalidArgument, invalid, "EMSGSIZE", "90"},
		"a negative timeout": {func() error {
			_, err := s.SetTimeout(d.ctx, &pb.SetTimeoutRequest{Name: a, Timeout: durationpb.New(-1)})
			return err
		}, codes.InvalidArgument, invalid, "EINVAL", "22"},
		"a negative timeout of poll": {func() error {
			_, err := s.Poll(d.ctx, &pb.PollRequest{Readable: []string{a}, Timeout: durationpb.New(-1)})
			return err
		}, codes.InvalidArgument, invalid, "EINVAL", "22"},
		"poll of a closed one": {func() error { _, err := s.Poll(d.ctx, &pb.PollRequest{Readable: []string{a, closed}}); return err }, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9"},
		"no network":           {func() error { _, err := s.CreateSocket(d.ctx, &pb.CreateSocketRequest{}); return err }, codes.InvalidArgument, invalid, "EPROTONOSUPPORT", "93"},
		"IP version 5": {func() error {
			_, err := s.CreateSocket(d.ctx, &pb.CreateSocketRequest{Network: pb.Network_NETWORK_TCP, IpVersion: 5})
			return err
		}, codes.InvalidArgument, invalid, "EAFNOSUPPORT", "97"},
	} {
		t.Run(what, func(t *testing.T) { wantErrno(t, c.call(), c.code, c.reason, c.errno, c.number) })
	}
	d.close(server, a, b, fresh, udp)
}

// connect_ex: a refusal is an answer. The socket can be used again.
func TestConnectErrno(t *testing.T) {
	d := serve(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	uri := "tcp://" + l.Addr().String()
	l.Close()
	name := d.sock(pb.Network_NETWORK_TCP)
	resp, err := d.sockets.Connect(d.ctx, &pb.ConnectRequest{Name: name, Address: uri, ReturnErrno: true})
	if err != nil || resp.GetErrno() != "ECONNREFUSED" || resp.GetErrnoNumber() != 111 || resp.GetSocket().GetName() != name {
		t.Error(resp, err)
	}
	_, err = d.sockets.Connect(d.ctx, &pb.ConnectRequest{Name: name, Address: uri})
	wantErrno(t, err, codes.FailedPrecondition, "SOCKET_CALL_FAILED", "ECONNREFUSED", "111")

	// A name is looked up. Without waiting the outcome is asked for later.
	server, addr := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	d.timeout(name, 0)
	resp, err = d.sockets.Connect(d.ctx, &pb.ConnectRequest{Name: name, Address: fmt.Sprintf("tcp4://localhost:%d", addr.GetPort()), ReturnErrno: true})
	if err != nil || resp.GetErrno() != "EINPROGRESS" && resp.GetErrno() != "" {
		t.Error(resp, err)
	}
	ready, err := d.sockets.Poll(d.ctx, &pb.PollRequest{Writable: []string{name}})
	if err != nil || !slices.Equal(ready.GetWritable(), []string{name}) {
		t.Error(ready, err)
	}
	if resp.GetErrno() != "" {
		if _, err = d.sockets.Connect(d.ctx, &pb.ConnectRequest{Name: name, Address: addr.GetUri()}); err != nil {
			t.Error(err)
		}
	}
	d.close(name, d.accept(server), server)
}

// Poll is select(2).
func TestPoll(t *testing.T) {
	d := serve(t)
	a, b := d.joined()
	server, addr := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	poll := func(r *pb.PollRequest, readable, writable, exceptional []string) {
		t.Helper()
		resp, err := d.sockets.Poll(d.ctx, r)
		if err != nil || !slices.Equal(resp.GetReadable(), readable) || !slices.Equal(resp.GetWritable(), writable) || !slices.Equal(resp.GetExceptional(), exceptional) {
			t.Errorf("%v\n%v %v", r, resp, err)
		}
	}
	both := []string{a, b}
	now := durationpb.New(0)
	poll(&pb.PollRequest{Readable: both, Timeout: now}, nil, nil, nil)
	poll(&pb.PollRequest{Readable: both, Timeout: durationpb.New(time.Millisecond)}, nil, nil, nil)
	poll(&pb.PollRequest{Readable: both, Writable: []string{b, a, b}, Exceptional: both}, nil, []string{b, a, b}, nil)
	poll(&pb.PollRequest{Timeout: now}, nil, nil, nil)

	// It waits until there is something.
	got := make(chan *pb.PollResponse, 1)
	go func() {
		resp, _ := d.sockets.Poll(d.ctx, &pb.PollRequest{Readable: []string{server, b, b}})
		got <- resp
	}()
	d.send(a, "x")
	if resp := <-got; !slices.Equal(resp.GetReadable(), []string{b, b}) {
		t.Errorf("%v", resp)
	}
	poll(&pb.PollRequest{Readable: both}, []string{b}, nil, nil)
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", addr.GetPort()))
	if err != nil {
		t.Fatal(err)
	}
	poll(&pb.PollRequest{Readable: []string{server}}, []string{server}, nil, nil) // a connection can be accepted

	// An error is exceptional, and all else too; the end is readable.
	accepted := d.accept(server)
	c.(*net.TCPConn).SetLinger(0)
	c.Close() // RST
	resp, err := d.sockets.Poll(d.ctx, &pb.PollRequest{Exceptional: []string{accepted, a}})
	if err != nil || !slices.Equal(resp.GetExceptional(), []string{accepted}) {
		t.Errorf("%v %v", resp, err)
	}
	d.close(a)
	d.recv(b) // the x
	poll(&pb.PollRequest{Readable: []string{b}}, []string{b}, nil, nil)
	d.close(b, server, accepted)
}

// Nothing is lost by a client that goes away in the middle of a call.
func TestCancelledCalls(t *testing.T) {
	d := serve(t)
	server, addr := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	a, b := d.joined()
	gone := func(call func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(d.ctx, 5*time.Millisecond)
		defer cancel()
		if err := call(ctx); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
	}
	for range 3 {
		gone(func(ctx context.Context) error {
			_, err := d.sockets.Accept(ctx, &pb.AcceptRequest{Name: server})
			return err
		})
		gone(func(ctx context.Context) error {
			_, err := d.sockets.Recv(ctx, &pb.RecvRequest{Name: b})
			return err
		})
		gone(func(ctx context.Context) error {
			_, err := d.sockets.Poll(ctx, &pb.PollRequest{Readable: []string{b}})
			return err
		})
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", addr.GetPort()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "here")
	accepted := d.accept(server)
	if got := d.recv(accepted); got != "here" {
		t.Errorf("%q", got)
	}
	d.send(a, "there")
	if got := d.recv(b); got != "there" {
		t.Errorf("%q", got)
	}
	d.timeout(b, 5*time.Millisecond)
	_, err = d.sockets.Recv(d.ctx, &pb.RecvRequest{Name: b})
	wantErrno(t, err, codes.DeadlineExceeded, "TIMED_OUT", "ETIMEDOUT", "110")
	d.close(server, a, b, accepted)
}

// Sockets of a client that does not come back are closed, those that it waits
// on are not.
func TestIdleSockets(t *testing.T) {
	d := serve(t)
	made := func() string {
		resp, err := d.sockets.CreateSocket(d.ctx, &pb.CreateSocketRequest{Network: pb.Network_NETWORK_UDP, IdleTimeout: durationpb.New(20 * time.Millisecond)})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetSocket().GetName()
	}
	waits := made()
	if _, err := d.sockets.Bind(d.ctx, &pb.BindRequest{Name: waits, Address: "udp://127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := d.sockets.Recv(ctx, &pb.RecvRequest{Name: waits})
		ended <- err
	}()
	exists := func(name string) bool {
		_, err := d.sockets.GetSocket(d.ctx, &pb.GetSocketRequest{Name: name})
		return err == nil
	}
	for range 3 {
		left := made()
		eventually(t, func() bool { return !exists(left) })
	}
	if !exists(waits) {
		t.Error("a socket with a call that waits was closed")
	}
	cancel()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	eventually(t, func() bool { return !exists(waits) })
}

// All sockets on the loop are listed: of clients, of listeners, and connections.
func TestListSockets(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	ping(t, l.GetStatus().GetBound()[0])
	resp, err := d.sockets.CreateSocket(d.ctx, &pb.CreateSocketRequest{
		Network: pb.Network_NETWORK_TCP, Options: map[string]*structpb.Value{"tcp.no_delay": structpb.NewBoolValue(false)},
	})
	if err != nil {
		t.Fatal(err)
	}
	a, b := d.joined()
	list := func(r *pb.ListSocketsRequest) (names []string) {
		t.Helper()
		for {
			resp, err := d.sockets.ListSockets(d.ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range resp.GetSockets() {
				names = append(names, s.GetName())
				got, err := d.sockets.GetSocket(d.ctx, &pb.GetSocketRequest{Name: s.GetName(), View: pb.SocketView_SOCKET_VIEW_FULL})
				if err != nil || got.GetSocket().GetFd() != s.GetFd() || got.GetSocket().GetRole() != s.GetRole() {
					t.Errorf("%v\n%v %v", s, got, err)
				}
				if s.GetRole() == pb.Socket_ROLE_UNSPECIFIED || s.GetInode() == 0 || s.GetTcpInfo() != nil || got.GetSocket().GetTcpInfo() == nil && s.GetListener() == "" {
					t.Errorf("%v", s)
				}
			}
			if r.PageToken = resp.GetNextPageToken(); r.GetPageToken() == "" {
				return names
			}
		}
	}
	all := list(&pb.ListSocketsRequest{})
	if len(all) != 5 {
		t.Errorf("%v", all)
	}
	if got := list(&pb.ListSocketsRequest{PageSize: 1}); !slices.Equal(got, all) {
		t.Errorf("page by page %v, at once %v", got, all)
	}
	for filter, want := range map[string][]string{
		"role = CREATED": {resp.GetSocket().GetName()}, "role = OUTBOUND": {a}, `role = ACCEPTED AND listener = ""`: {b},
		`owner:"uid" AND tcp_info.state = TCP_STATE_ESTABLISHED`: nil,
	} {
		if got := list(&pb.ListSocketsRequest{Filter: filter}); want != nil && !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", filter, got, want)
		}
	}
	if got := list(&pb.ListSocketsRequest{Filter: `listener = "listeners/web"`}); len(got) != 2 {
		t.Errorf("of the listener: %v", got)
	}
	d.close(a, b, resp.GetSocket().GetName())
}

// Calls that wait do not keep others of the same client from being made.
func TestManyWait(t *testing.T) {
	d := serve(t)
	a, b := d.joined()
	const n = 200
	got := make(chan error, n)
	server, _ := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	for range n {
		go func() {
			_, err := d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: server})
			got <- err
		}()
	}
	for range 3 {
		d.send(a, "ping")
		if text := d.recv(b); text != "ping" {
			t.Errorf("%q", text)
		}
	}
	// Once all wait, the end of the socket is the end of them.
	eventually(t, func() bool {
		resp, err := d.sockets.GetSocket(d.ctx, &pb.GetSocketRequest{Name: server})
		return err == nil && len(resp.GetSocket().GetWaitsFor()) == 1
	})
	d.close(server, a, b)
	for range n {
		wantErrno(t, <-got, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9")
	}
}
