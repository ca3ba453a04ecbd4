package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// What is asked beside gRPC, where descriptors are given.
const (
	takeMethod      = "/handover/Take"
	superviseMethod = "/handover/Supervise"
)

// A Beside lets in who asks the daemon beside gRPC, over a Unix socket: by the
// same rules, and with the same lines of audit.
type Beside struct {
	identify identify
	guard    *guard
}

// NewBeside returns one. Without rules it is for root and the daemon's own user.
// The daemon before may call it: it becomes the supervisor. No forward leads
// there, since none goes to a socket of that type.
func NewBeside(m *manager.Manager, log hclog.Logger, rules *access.Rules) *Beside {
	if rules == nil {
		rules = ownOnly()
	}
	return &Beside{
		identify: identify{rules: rules, refuseOwn: true},
		guard: &guard{log: log, m: m, audit: newAuditor(log, m), roles: map[string]pb.Role{
			takeMethod: pb.Role_ROLE_OPERATOR, superviseMethod: pb.Role_ROLE_ADMIN,
		}},
	}
}

// Enter finds out who is at the other end, before a word of it is read. Who may
// do nothing is refused.
func (b *Beside) Enter(ctx context.Context, conn *net.UnixConn) (context.Context, error) {
	_, who, err := b.identify.whose(conn)
	if err != nil {
		b.guard.audit.shut(conn, err)
		return ctx, err
	}
	c := newCaller(b.identify.rules, who)
	ctx = narrowed(ctx, c)
	if len(c.grants) == 0 {
		err := roleMissing(c, "have sockets of the daemon", pb.Role_ROLE_OPERATOR)
		ctx = begin(ctx, takeMethod, nil)
		return ctx, b.guard.audit.done(ctx, takeMethod, pb.Role_ROLE_OPERATOR, nil, nil, err)
	}
	return ctx, nil
}

// Take runs do for who may change all of the listeners.
func (b *Beside) Take(ctx context.Context, names []string, do func(context.Context) error) error {
	return b.call(ctx, takeMethod, namesRequest{names}, func(ctx context.Context) error {
		err := do(ctx)
		if pid := callerOf(ctx).who.PID; err == nil {
			for _, name := range names {
				noteChange(ctx, "sockets of "+name, "the daemon's", fmt.Sprintf("also those of pid %d", pid))
			}
		}
		return err
	})
}

// Supervise runs do for root and the daemon's own user: who supervises the daemon
// has all that it has.
func (b *Beside) Supervise(ctx context.Context, socket string, do func(context.Context) error) error {
	return b.call(ctx, superviseMethod, socketRequest{socket}, func(ctx context.Context) error {
		if c := callerOf(ctx); !c.who.IsUser || c.who.UID != 0 && int(c.who.UID) != os.Geteuid() {
			return &listeners.Fault{
				Reason: listeners.RoleMissing, Message: c.String() + " may not supervise the daemon: that is for root and the daemon's own user",
				Fix: "call as one of them", Meta: map[string]string{"caller": c.String()},
			}
		}
		err := do(ctx)
		if err == nil {
			noteChange(ctx, "supervisor", "another or none", fmt.Sprintf("pid %d", callerOf(ctx).who.PID))
		}
		return err
	})
}

func (b *Beside) call(ctx context.Context, method string, req any, do func(context.Context) error) error {
	_, err := b.guard.unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		return nil, do(ctx)
	})
	return err
}

// Refusal is what there is to say of an error of a call, and its reason.
func Refusal(err error) (message, reason string) {
	issue := issueOf(err)
	return issue.GetMessage(), issue.GetCode()
}

// namesRequest is about several names.
type namesRequest struct{ names []string }

// GetName is for the audit.
func (r namesRequest) GetName() string { return strings.Join(r.names, " ") }

func (r namesRequest) wants() (all []access.Want) {
	for _, name := range r.names {
		all = append(all, nameOf(name)...)
	}
	return all
}

// socketRequest is about a socket of the caller's.
type socketRequest struct{ path string }

// GetName is for the audit.
func (r socketRequest) GetName() string { return r.path }
