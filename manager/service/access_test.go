package service_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// Who may connect is changed while a listener runs: open connections stay, the
// sockets too, and each refusal is counted by its reason.
func TestAccess(t *testing.T) {
	d := serve(t)
	spec := echoSpec("tcp4://127.0.0.1:0")
	spec.Access = &pb.AccessPolicy{Allow: []string{"127.0.0.1", "10.0.0.0/8"}}
	was := d.createSpec("web", spec)
	if want := []string{"127.0.0.1/32", "10.0.0.0/8"}; strings.Join(was.GetSpec().GetAccess().GetAllow(), " ") != strings.Join(want, " ") {
		t.Error(was.GetSpec().GetAccess())
	}
	in := ping(t, was.GetStatus().GetBound()[0])
	defer in.Close()
	update := func(p *pb.AccessPolicy, paths ...string) *pb.UpdateListenerResponse {
		t.Helper()
		resp, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
			Listener: &pb.Listener{Name: "web", Spec: &pb.ListenerSpec{Access: p}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := update(&pb.AccessPolicy{Deny: []string{"127.0.0.0/8"}})
	if c := resp.GetChanges(); len(c) != 1 || c[0].GetPath() != "spec.access" || c[0].GetEffect() != pb.OptionSpec_EFFECT_NEW_CONNECTIONS || c[0].GetNeedsRebind() {
		t.Error(c)
	}
	exchange(t, in)
	uri := was.GetStatus().GetBound()[0]
	out, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.ParseIP(uri.GetIp()), Port: int(uri.GetPort())})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	_ = out.SetDeadline(time.Now().Add(patience))
	if n, err := out.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v", n, err)
	}
	now := d.get("web")
	if now.GetStatus().GetRejectedTotal() != 1 || now.GetStatus().GetAcceptedTotal() != 1 || now.GetStatus().GetBound()[0].GetPort() != uri.GetPort() {
		t.Error(now.GetStatus())
	}
	stats, err := d.stats.GetStats(d.ctx, &pb.GetStatsRequest{})
	if err != nil || stats.GetSnapshot().GetListeners()[0].GetRejected()["access"] != 1 {
		t.Errorf("%v, %v", stats, err)
	}
	if now := update(&pb.AccessPolicy{Deny: []string{"127.0.0.0/8"}}); len(now.GetChanges()) != 0 {
		t.Error(now.GetChanges())
	}
	if l := update(nil, "spec.access").GetListener(); l.GetSpec().GetAccess() != nil || proto.Equal(l, now) {
		t.Error(l)
	}
	ping(t, uri).Close()
}

// 10,000 networks are kept over a restart of the daemon.
func TestAccessKept(t *testing.T) {
	dir := t.TempDir()
	d := serveState(t, dir)
	spec := echoSpec("tcp4://127.0.0.1:0")
	spec.Access = &pb.AccessPolicy{Reset_: true}
	for i := range 10_000 {
		spec.Access.Deny = append(spec.Access.Deny, net.IPv4(10, byte(i>>8), byte(i), 1).String()+"/32")
	}
	d.createSpec("web", spec)
	d.stop()
	d = serveState(t, dir)
	if got := d.get("web").GetSpec().GetAccess(); !proto.Equal(got, spec.GetAccess()) {
		t.Errorf("%d networks, %v", len(got.GetDeny()), got.GetReset_())
	}
	ping(t, d.get("web").GetStatus().GetBound()[0]).Close()
}
