package service

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

// checkKnown refuses a request with a field that this daemon does not know. To
// ignore it, as protobuf would, is to do something other than was asked: the
// client is newer than the daemon, or mistaken.
func checkKnown(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	field := unknownField(m.ProtoReflect())
	if field == "" {
		return nil
	}
	return &listeners.Violation{Field: field, Message: "is not known to this daemon: the client may be newer"}
}

// unknownField returns the path of the first unknown field in m, or nothing. What
// cannot have one in it is not looked at: a request may have many messages.
func unknownField(m protoreflect.Message) string {
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		number, _, _ := protowire.ConsumeTag(unknown)
		return fmt.Sprintf("%d of %s", number, m.Descriptor().FullName())
	}
	if l, ok := m.Interface().(*pb.Listener); ok && isBare(l) {
		return ""
	}
	for _, p := range partsOf(m.Descriptor()) {
		f := p.field
		if p.oneof != nil {
			f = m.WhichOneof(p.oneof)
		}
		if f == nil || f.Message() == nil || !m.Has(f) {
			continue
		}
		if found := unknownIn(f, m.Get(f)); found != "" {
			return string(f.Name()) + found
		}
	}
	return ""
}

// isBare reports whether nothing in a listener, itself aside, has an unknown field:
// as unknownField does, but of those only that have a spec, a handler and nothing else
// in them. In a large set nearly all are such, and asked without reflection.
func isBare(l *pb.Listener) bool {
	s, h := l.GetSpec(), l.GetSpec().GetHandler()
	if l.GetStatus() != nil || l.GetCreateTime() != nil || l.GetUpdateTime() != nil || len(s.GetOptions()) > 0 ||
		s.GetAccess() != nil || s.GetTls() != nil || s.GetProxyProtocol() != nil || s.GetDrain() != nil {
		return false
	}
	if s == nil {
		return true
	}
	if len(s.ProtoReflect().GetUnknown()) > 0 {
		return false
	}
	if echo, ok := h.GetKind().(*pb.Handler_Echo); ok {
		return len(h.ProtoReflect().GetUnknown())+len(echo.Echo.ProtoReflect().GetUnknown()) == 0
	}
	return h == nil || unknownField(h.ProtoReflect()) == ""
}

// unknownIn is unknownField of all messages in a field.
func unknownIn(f protoreflect.FieldDescriptor, v protoreflect.Value) (found string) {
	switch {
	case f.IsMap():
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			if found = unknownField(v.Message()); found != "" {
				found = "." + k.String() + "." + found
			}
			return found == ""
		})
	case f.IsList():
		list := v.List()
		for i := range list.Len() {
			if found = unknownField(list.Get(i).Message()); found != "" {
				return fmt.Sprintf("[%d].%s", i, found)
			}
		}
	default:
		if found = unknownField(v.Message()); found != "" {
			return "." + found
		}
	}
	return found
}

// A part of a message is a field with messages in it, or a oneof that may have one.
type part struct {
	field protoreflect.FieldDescriptor
	oneof protoreflect.OneofDescriptor
}

// parts of all messages that were looked at, by protoreflect.MessageDescriptor:
// there are as many as in the API.
var parts sync.Map

func partsOf(d protoreflect.MessageDescriptor) []part {
	if known, ok := parts.Load(d); ok {
		return known.([]part)
	}
	var all []part
	seen := map[protoreflect.OneofDescriptor]bool{}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		oneof := f.ContainingOneof()
		switch {
		case f.Message() == nil, f.IsMap() && f.MapValue().Message() == nil:
		case oneof == nil:
			all = append(all, part{field: f})
		case !seen[oneof]:
			seen[oneof] = true
			all = append(all, part{oneof: oneof})
		}
	}
	parts.Store(d, all)
	return all
}

// checkedStream checks what a client sends on a stream.
type checkedStream struct {
	grpc.ServerStream
	ctx    context.Context
	guard  *guard
	method string
	first  any // that was sent
}

// Context says on whose behalf the stream is.
func (s *checkedStream) Context() context.Context { return s.ctx }

// RecvMsg receives and checks one message.
func (s *checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if s.first == nil && !strings.HasSuffix(s.method, "/Stream") { // which goes on with bytes
		s.first = m
	}
	if err := checkKnown(m); err != nil {
		return err
	}
	_, err := s.guard.within(s.ctx, s.method, m)
	return err
}
