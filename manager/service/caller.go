package service

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// A caller is who the kernel says is at the other end of a Unix socket.
type caller struct {
	credentials.CommonAuthInfo
	uid     uint32
	pid     int32
	granted pb.Role // what it may do
}

// newCaller returns the caller with its role: root and the daemon's own user
// may do everything, others nothing.
func newCaller(uid uint32, pid int32) caller {
	c := caller{uid: uid, pid: pid}
	if c.uid == 0 || int(c.uid) == os.Geteuid() {
		c.granted = pb.Role_ROLE_ADMIN
	}
	return c
}

// AuthType is credentials.AuthInfo.
func (caller) AuthType() string { return "peercred" }

// String is for messages and the log.
func (c caller) String() string { return fmt.Sprintf("uid:%d", c.uid) }

// MarshalText is for a log in JSON, which would have the exported fields.
func (c caller) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func callerOf(ctx context.Context) caller {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{uid: ^uint32(0)}
	}
	c, ok := p.AuthInfo.(caller)
	if !ok {
		return caller{uid: ^uint32(0)} // nobody
	}
	return c
}

// withCause says in the event log who called, and with what request.
func withCause(ctx context.Context, req any) context.Context {
	cause := manager.Cause{Actor: callerOf(ctx).String()}
	if r, ok := req.(interface{ GetRequestId() string }); ok {
		cause.RequestID = r.GetRequestId()
	}
	return manager.WithCause(ctx, cause)
}

// peerCredentials asks SO_PEERCRED (unix(7)) of every connection.
type peerCredentials struct{}

// ServerHandshake reads the credentials; nothing is exchanged.
func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("control connection over %T: only Unix sockets tell who calls", conn)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var cred *unix.Ucred
	var errCred error
	if err := raw.Control(func(fd uintptr) {
		cred, errCred = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, nil, err
	}
	if errCred != nil {
		return nil, nil, os.NewSyscallError("getsockopt SO_PEERCRED", errCred)
	}
	secure := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity} // it never leaves the host
	c := newCaller(cred.Uid, cred.Pid)
	c.CommonAuthInfo = secure
	return conn, c, nil
}

// ClientHandshake is not for servers.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("peercred: server side only")
}

// Info is credentials.TransportCredentials.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

// Clone is credentials.TransportCredentials.
func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName is credentials.TransportCredentials.
func (peerCredentials) OverrideServerName(string) error { return nil }

// openMethods are those of gRPC's own services: they carry no annotation.
var openMethods = map[string]pb.Role{
	"/grpc.health.v1.Health/Check":                                   pb.Role_ROLE_VIEWER,
	"/grpc.health.v1.Health/List":                                    pb.Role_ROLE_VIEWER,
	"/grpc.health.v1.Health/Watch":                                   pb.Role_ROLE_VIEWER,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      pb.Role_ROLE_VIEWER,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": pb.Role_ROLE_VIEWER,
}

// methodRoles reads the role of every method from the descriptors.
func methodRoles() map[string]pb.Role {
	roles := maps.Clone(openMethods)
	protoregistry.GlobalFiles.RangeFilesByPackage("sockmgr.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				role, _ := proto.GetExtension(method.Options(), pb.E_RequiredRole).(pb.Role)
				roles[fmt.Sprintf("/%s/%s", service.FullName(), method.Name())] = role
			}
		}
		return true
	})
	return roles
}

// check refuses a caller without the role that the method needs, and every
// caller of a method without one.
func (g *guard) check(ctx context.Context, method string) error {
	need := g.roles[method]
	who := callerOf(ctx)
	if need != pb.Role_ROLE_UNSPECIFIED && who.granted >= need {
		return nil
	}
	g.log.Warn("call refused", "method", method, "caller", who, "role", roleName(need))
	return roleMissing(who, "call "+method, need)
}

func roleMissing(who caller, what string, need pb.Role) error {
	return &listeners.Fault{
		Reason: listeners.RoleMissing, Message: fmt.Sprintf("%v may not %s: it needs the role %s", who, what, roleName(need)),
		Fix: "call as root or as the daemon's own user", Meta: map[string]string{"role": roleName(need), "caller": who.String()},
	}
}

// recover turns a panic into an error of this one call.
func (g *guard) recover(method string, err *error) {
	r := recover()
	if r == nil {
		return
	}
	g.log.Error("panic in a call", "method", method, "panic", r, "stack", string(debug.Stack()))
	*err = toStatus(&listeners.Fault{Reason: listeners.Internal, Message: method + " failed by a fault of the daemon's own", Fix: "the daemon's log has the stack: please report it"})
}

// roleName is viewer for ROLE_VIEWER.
func roleName(r pb.Role) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_"))
}
