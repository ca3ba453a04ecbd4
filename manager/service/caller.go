package service

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager/access"
)

// A caller is who is at the other end, with what it was given.
type caller struct {
	credentials.CommonAuthInfo
	who      access.Identity
	name     string // of who, made once for all calls
	grants   []access.Grant
	granted  pb.Role // the highest of them
	overUnix bool    // it has come over a Unix socket
	used     *usage  // by its connection
	answers  *answers
}

// newCaller returns the caller with what the rules give.
func newCaller(rules *access.Rules, who access.Identity) caller {
	c := caller{who: who, name: who.String(), grants: rules.Grants(who)}
	c.SecurityLevel = credentials.PrivacyAndIntegrity
	for _, g := range c.grants {
		c.granted = max(c.granted, pb.Role(g.Role))
	}
	return c
}

// AuthType is credentials.AuthInfo.
func (c caller) AuthType() string { return "sockmgr" }

// String is for messages and the log.
func (c caller) String() string {
	if c.name == "" {
		return c.who.String()
	}
	return c.name
}

// identity is who it is, without what it was given and its connection.
func (c caller) identity() caller { return caller{who: c.who, name: c.name} }

// MarshalText is for a log in JSON, which would have the exported fields.
func (c caller) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// callerOf is who calls; once a policy has been asked, with the grants that allow
// the call.
func callerOf(ctx context.Context) caller {
	if c, ok := ctx.Value(callerKey{}).(caller); ok {
		return c
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}
	}
	c, _ := p.AuthInfo.(caller) // or nobody
	return c
}

// openMethods are those of gRPC's own services: they carry no annotation.
var openMethods = map[string]pb.Role{
	"/grpc.health.v1.Health/Check":                                   pb.Role_ROLE_VIEWER,
	"/grpc.health.v1.Health/List":                                    pb.Role_ROLE_VIEWER,
	"/grpc.health.v1.Health/Watch":                                   pb.Role_ROLE_VIEWER,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      pb.Role_ROLE_ADMIN, // and over a Unix socket
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": pb.Role_ROLE_ADMIN,
}

const reflectionPrefix = "/grpc.reflection."

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
		if strings.HasPrefix(method, reflectionPrefix) && !who.overUnix {
			return &listeners.Fault{
				Reason: listeners.RoleMissing, Message: fmt.Sprintf("%v may not call %s: it is for admins on the Unix socket", who, method),
				Fix: "sockctl and clients with the .proto files need no reflection", Meta: map[string]string{"role": "admin", "caller": who.String()},
			}
		}
		return nil
	}
	return roleMissing(who, "call "+method, need)
}

func roleMissing(who caller, what string, need pb.Role) error {
	return &listeners.Fault{
		Reason: listeners.RoleMissing, Message: fmt.Sprintf("%v may not %s: it needs the role %s", who, what, roleName(need)),
		Fix: "ask who runs the daemon for a rule under access in its configuration, or call as root; sockctl daemon whoami tells what you may", Meta: map[string]string{"role": roleName(need), "caller": who.String()},
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
