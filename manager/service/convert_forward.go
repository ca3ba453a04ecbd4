package service

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

var balanceToPB = map[listeners.Balance]pb.ForwardHandler_Balance{
	"": pb.ForwardHandler_BALANCE_UNSPECIFIED, listeners.RoundRobin: pb.ForwardHandler_BALANCE_ROUND_ROBIN,
	listeners.LeastConnections: pb.ForwardHandler_BALANCE_LEAST_CONNECTIONS,
	listeners.SourceHash:       pb.ForwardHandler_BALANCE_SOURCE_HASH, listeners.First: pb.ForwardHandler_BALANCE_FIRST,
}

func balanceFromPB(b pb.ForwardHandler_Balance) listeners.Balance {
	for balance, name := range balanceToPB {
		if name == b {
			return balance
		}
	}
	return listeners.Balance(b.String()) // Validate refuses it
}

// spanToPB leaves out what is unset.
func spanToPB(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func forwardToPB(f *listeners.Forward) *pb.ForwardHandler {
	out := &pb.ForwardHandler{
		Upstreams: upstreamsToPB(f.Upstreams), Balance: balanceToPB[f.Balance], ConnectTimeout: spanToPB(f.ConnectTimeout),
		SendProxyProtocol: f.SendProxy, HelloTimeout: spanToPB(f.HelloTimeout),
	}
	for _, r := range f.Routes {
		out.Routes = append(out.Routes, &pb.Route{ServerNames: r.Names, Upstreams: upstreamsToPB(r.Upstreams)})
	}
	if h := f.Health; h != nil {
		out.HealthCheck = &pb.HealthCheck{Interval: spanToPB(h.Interval), Timeout: spanToPB(h.Timeout), Rise: h.Rise, Fall: h.Fall}
	}
	return out
}

func forwardFromPB(f *pb.ForwardHandler) *listeners.Forward {
	out := &listeners.Forward{
		Upstreams: upstreamsFromPB(f.GetUpstreams()), Balance: balanceFromPB(f.GetBalance()), ConnectTimeout: f.GetConnectTimeout().AsDuration(),
		SendProxy: f.GetSendProxyProtocol(), HelloTimeout: f.GetHelloTimeout().AsDuration(),
	}
	for _, r := range f.GetRoutes() {
		out.Routes = append(out.Routes, listeners.Route{Names: r.GetServerNames(), Upstreams: upstreamsFromPB(r.GetUpstreams())})
	}
	if h := f.GetHealthCheck(); h != nil {
		out.Health = &listeners.HealthCheck{
			Interval: h.GetInterval().AsDuration(), Timeout: h.GetTimeout().AsDuration(), Rise: h.GetRise(), Fall: h.GetFall(),
		}
	}
	return out
}

func upstreamsToPB(all []listeners.Upstream) (out []*pb.Upstream) {
	for _, u := range all {
		out = append(out, &pb.Upstream{Address: u.Address, Weight: u.Weight, Drain: u.Drain})
	}
	return out
}

func upstreamsFromPB(all []*pb.Upstream) (out []listeners.Upstream) {
	for _, u := range all {
		out = append(out, listeners.Upstream{Address: u.GetAddress(), Weight: u.GetWeight(), Drain: u.GetDrain()})
	}
	return out
}

func upstreamToPB(u listeners.UpstreamStatus) *pb.UpstreamStatus {
	out := &pb.UpstreamStatus{
		Address: u.Address, Healthy: u.Healthy, Drain: u.Drain, Weight: u.Weight, ActiveConnections: uint64(u.Active),
		ConnectsTotal: u.Connects, FailuresTotal: u.Failed, LastError: u.LastError, ServerNames: u.Names,
	}
	for _, a := range u.Resolved {
		out.Resolved = append(out.Resolved, addressToPB(a))
	}
	return out
}
