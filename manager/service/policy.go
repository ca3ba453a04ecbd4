package service

import (
	"context"
	"fmt"
	"slices"
	"strings"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// wantsOf says what a request wants, of that which policies narrow. It goes by
// what is sent, whatever a mask makes of it. Requests that only read want
// nothing here, nor do those about a caller's own sockets.
func wantsOf(ctx context.Context, m *manager.Manager, req any) []access.Want {
	switch r := req.(type) {
	case *pb.CreateListenerRequest:
		return append(nameOf(r.GetListenerId()), specWants(r.GetListener().GetSpec())...)
	case *pb.UpdateListenerRequest:
		return append(nameOf(r.GetListener().GetName()), specWants(r.GetListener().GetSpec())...)
	case *pb.ApplyListenersRequest: // what it prunes is looked at when it is known
		var all []access.Want
		for _, l := range r.GetListeners() {
			all = append(append(all, nameOf(l.GetName())...), specWants(l.GetSpec())...)
		}
		return all
	case *pb.DeleteListenerRequest:
		return nameOf(r.GetName())
	case *pb.StartListenerRequest:
		return nameOf(r.GetName())
	case *pb.StopListenerRequest:
		return nameOf(r.GetName())
	case *pb.PauseListenerRequest:
		return nameOf(r.GetName())
	case *pb.ResumeListenerRequest:
		return nameOf(r.GetName())
	case *pb.DrainListenerRequest:
		return nameOf(r.GetName())
	case *pb.SetOptionsRequest:
		if id, ok := strings.CutPrefix(r.GetTarget(), connectionPrefix); ok {
			return connectionWants(ctx, m, id)
		}
		if strings.HasPrefix(r.GetTarget(), socketPrefix) {
			return nil // its owner's
		}
		return nameOf(r.GetTarget())
	case *pb.ConfirmOptionsRequest:
		if name := m.TriedOn(r.GetChangeId()); name != "" {
			return nameOf(name)
		}
	case *pb.AcceptRequest:
		if strings.HasPrefix(r.GetName(), listenerPrefix) {
			return nameOf(r.GetName())
		}
	case *pb.BindRequest:
		return []access.Want{{Kind: access.Address, Value: r.GetAddress()}}
	case *pb.ListenRequest:
		return unboundWants(ctx, m, r.GetName())
	case *pb.ConnectRequest:
		return []access.Want{{Kind: access.Upstream, Value: r.GetAddress()}}
	case namesRequest:
		return r.wants()
	case *pb.SendToRequest:
		return []access.Want{{Kind: access.Upstream, Value: r.GetAddress()}}
	}
	return nil
}

func nameOf(name string) []access.Want {
	return []access.Want{{Kind: access.Name, Value: bare(name, listenerPrefix)}}
}

// connectionWants is the listener of a connection. One that is gone wants
// nothing: its call is told so.
func connectionWants(ctx context.Context, m *manager.Manager, id string) []access.Want {
	st, err := m.Conn(ctx, id)
	if err != nil {
		return nil
	}
	return nameOf(st.Listener)
}

// unboundWants is what listen(2) binds to by itself: a port of the kernel's on
// all addresses.
func unboundWants(ctx context.Context, m *manager.Manager, name string) []access.Want {
	st, err := m.Sockets().Get(ctx, name, false)
	if err != nil || !st.Local.IP.IsValid() || st.Local.IP.Port() != 0 {
		return nil
	}
	return []access.Want{{Kind: access.Address, Value: st.Local.String()}}
}

// specWants is what a listener would be.
func specWants(s *pb.ListenerSpec) []access.Want {
	var all []access.Want
	for _, uri := range s.GetListen() {
		all = append(all, access.Want{Kind: access.Address, Value: uri})
	}
	h := s.GetHandler().ProtoReflect()
	if kind := h.WhichOneof(h.Descriptor().Oneofs().ByName("kind")); kind != nil {
		all = append(all, access.Want{Kind: access.Handler, Value: string(kind.Name())})
	}
	if command := s.GetHandler().GetExec().GetCommand(); len(command) > 0 {
		all = append(all, access.Want{Kind: access.Program, Value: command[0]})
	}
	if path := s.GetHandler().GetHandoff().GetPath(); path != "" {
		all = append(all, access.Want{Kind: access.Upstream, Value: "unixpacket://" + path})
	}
	forward := s.GetHandler().GetForward()
	upstreams := forward.GetUpstreams()
	for _, route := range forward.GetRoutes() {
		upstreams = append(slices.Clip(upstreams), route.GetUpstreams()...)
	}
	for _, u := range upstreams {
		all = append(all, access.Want{Kind: access.Upstream, Value: u.GetAddress()})
	}
	return all
}

// isNarrowed reports whether a policy narrows one of the grants: otherwise what is
// wanted makes no difference.
func (c caller) isNarrowed() bool {
	return slices.ContainsFunc(c.grants, func(g access.Grant) bool { return g.Policy != nil })
}

// permit returns the caller with those grants only that allow all of it; without
// any, why not. Each grant must have the role that is needed.
func permit(who caller, need pb.Role, what string, wants []access.Want) (caller, error) {
	fits := make([]access.Grant, 0, len(who.grants))
	var denied error
	for _, g := range who.grants {
		if pb.Role(g.Role) < need {
			continue
		}
		if err := denial(who, g, what, wants); err != nil {
			if denied == nil {
				denied = err
			}
			continue
		}
		fits = append(fits, g)
	}
	switch {
	case denied == nil && len(fits) == 0:
		return who, roleMissing(who, what, need)
	case len(fits) == 0:
		return who, denied
	}
	if len(fits) == len(who.grants) {
		return who, nil
	}
	who.grants, who.granted = fits, pb.Role_ROLE_UNSPECIFIED
	for _, g := range fits {
		who.granted = max(who.granted, pb.Role(g.Role))
	}
	return who, nil
}

// denial is why a grant does not allow all of it.
func denial(who caller, g access.Grant, what string, wants []access.Want) error {
	for _, w := range wants {
		list, ok := g.Policy.Permits(w)
		if ok {
			continue
		}
		return &listeners.Fault{
			Reason:  listeners.PolicyDenied,
			Message: fmt.Sprintf("%v may not %s: %s of %s do not allow %q", who, what, list, g.Rule, clip(w.Value, maxDescription/2)),
			Fix:     "sockctl daemon whoami tells what is allowed",
			Meta:    map[string]string{"caller": who.String(), "policy": list, "value": w.Value, "rule": g.Rule},
		}
	}
	return nil
}

// mayTouch refuses listeners of which it is known late that a call is about
// them.
func mayTouch(ctx context.Context, need pb.Role, what string, names ...string) error {
	var wants []access.Want
	for _, name := range names {
		wants = append(wants, nameOf(name)...)
	}
	_, err := permit(callerOf(ctx), need, what, wants)
	return err
}

type callerKey struct{}

// narrowed returns the context with what is left of the caller.
func narrowed(ctx context.Context, who caller) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}
