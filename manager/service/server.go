package service

import (
	"context"
	"crypto/tls"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
	"github.com/sockmgr/sockmgr/sockets"
)

// Bounds of the control plane.
const (
	maxRequestBytes      = sockets.MaxPayload + 64<<10 // and what a message has beside it
	maxHeaderBytes       = 8 << 10
	maxConcurrentStreams = 2 * sockets.MaxOwned // of one connection: a call may wait each way on every socket of a client
	connectTimeout       = 5 * time.Second
	leastPingInterval    = 10 * time.Second
	streamWorkers        = 32 // goroutines that take one call after the other: their stacks have grown already. More calls have goroutines of their own
)

// Config is what NewServer needs.
type Config struct {
	Manager *manager.Manager
	Log     hclog.Logger
	Loggers *Loggers
	Info    *pb.DaemonInfo // what is known when the daemon begins; instance_id is set
	Access  *access.Rules  // nil: root and the daemon's own user only
	// TLS is for the next connection over TCP; nil: there is none. It has
	// certificates and ClientCAs; what else must be is set.
	TLS func() *tls.Config
	// InsecureLoopback lets TCP in without TLS, from this host only, for the user
	// whose the other end is.
	InsecureLoopback bool
	// RefuseOwn refuses connections that come from this very process.
	RefuseOwn bool
	// Former are the daemons that this one has taken over from: they are refused
	// alike, for as long as they serve what could not move.
	Former []access.Process
	// Shutdown begins to end the daemon. It returns at once.
	Shutdown func(drain time.Duration)
	// Upgrade puts another program in the place of the daemon: see Upgrade.
	Upgrade func(ctx context.Context, r Upgrade, tell func(phase UpgradePhase, message string, pid int)) error
}

// NewServer returns a server with all services.
func NewServer(c Config) *grpc.Server {
	if c.Access == nil {
		c.Access = ownOnly()
	}
	audit := newAuditor(c.Log, c.Manager)
	guard := &guard{log: c.Log, roles: methodRoles(), m: c.Manager, audit: audit}
	once := newOnce()
	s := grpc.NewServer(
		grpc.Creds(identify{rules: c.Access, tls: c.TLS, loopback: c.InsecureLoopback, refuseOwn: c.RefuseOwn, former: c.Former, refused: audit.shut, slowed: audit.slowed, conns: newConns()}),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.InTapHandle(count),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastPingInterval, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(guard.unary, once.unary),
		grpc.ChainStreamInterceptor(guard.stream),
	)
	pb.RegisterListenerServiceServer(s, &listenerService{m: c.Manager, instance: c.Info.GetInstanceId()})
	pb.RegisterConnectionServiceServer(s, &connectionService{m: c.Manager})
	pb.RegisterTuningServiceServer(s, &tuningService{m: c.Manager})
	pb.RegisterEventServiceServer(s, &eventService{m: c.Manager, instance: c.Info.GetInstanceId()})
	pb.RegisterStatsServiceServer(s, &statsService{m: c.Manager})
	pb.RegisterDaemonServiceServer(s, &daemonService{c: c})
	pb.RegisterSocketServiceServer(s, &socketService{m: c.Manager})
	healthpb.RegisterHealthServer(s, &healthService{m: c.Manager})
	reflection.Register(s)
	return s
}

// ownOnly are the rules where there are none.
func ownOnly() *access.Rules {
	rules, err := access.NewRules(uint32(os.Geteuid()), nil)
	if err != nil {
		panic(err) // of no rules none is bad
	}
	return rules
}

// guard stands before every method: it knows the caller, checks the role, turns
// errors into statuses and keeps a panic from ending the daemon.
type guard struct {
	log   hclog.Logger
	roles map[string]pb.Role // by full method name
	m     *manager.Manager
	audit *auditor

	blocked time.Duration // 0: blockedTime
}

// within refuses what no policy of the caller allows.
func (g *guard) within(ctx context.Context, method string, req any) (context.Context, error) {
	who := callerOf(ctx)
	_, call, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	var wants []access.Want
	if who.isNarrowed() {
		wants = wantsOf(ctx, g.m, req)
	}
	left, err := permit(who, g.roles[method], call, wants)
	if err != nil || len(left.grants) == len(who.grants) {
		return ctx, err
	}
	return narrowed(ctx, left), nil
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err() // given up before it began
	}
	ctx = begin(ctx, info.FullMethod, req)
	defer func() { err = g.audit.done(ctx, info.FullMethod, g.roles[info.FullMethod], req, resp, err) }()
	defer g.recover(info.FullMethod, &err)
	if err := g.check(ctx, info.FullMethod); err != nil {
		return nil, toStatus(err)
	}
	if err := checkKnown(req); err != nil {
		return nil, toStatus(err)
	}
	if ctx, err = g.within(ctx, info.FullMethod, req); err != nil {
		return nil, toStatus(err)
	}
	end, err := callerOf(ctx).hold(ctx, info.FullMethod)
	if err != nil {
		return nil, toStatus(err)
	}
	defer end()
	resp, err = next(ctx, req)
	if err == nil && g.m != nil && g.roles[info.FullMethod] == pb.Role_ROLE_VIEWER {
		err = g.m.HandedOver() // what was read here is not so any more
	}
	g.note(ctx, info.FullMethod, err)
	return resp, toStatus(err)
}

func (g *guard) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	if err := stream.Context().Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	ctx := begin(stream.Context(), info.FullMethod, nil)
	checked := &checkedStream{ServerStream: stream, ctx: ctx, guard: g, method: info.FullMethod}
	defer func() { err = g.audit.done(ctx, info.FullMethod, g.roles[info.FullMethod], checked.first, nil, err) }()
	defer g.recover(info.FullMethod, &err)
	if err := g.check(ctx, info.FullMethod); err != nil {
		return toStatus(err)
	}
	end, err := callerOf(ctx).hold(ctx, info.FullMethod)
	if err != nil {
		return toStatus(err)
	}
	defer end()
	run := func(stream grpc.ServerStream) (err error) {
		defer g.recover(info.FullMethod, &err)
		return next(srv, stream)
	}
	if info.IsServerStream && !info.IsClientStream {
		err = watched(checked, run)
	} else {
		err = run(checked)
	}
	g.note(ctx, info.FullMethod, err)
	return toStatus(err)
}

func (g *guard) note(ctx context.Context, method string, err error) {
	if err != nil {
		g.log.Debug("call failed", "method", method, "caller", callerOf(ctx), "error", err)
	} else if g.log.IsTrace() {
		g.log.Trace("call", "method", method, "caller", callerOf(ctx))
	}
}
