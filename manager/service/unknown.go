package service

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

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
	field := unknownField(m.ProtoReflect(), "")
	if field == "" {
		return nil
	}
	return &listeners.Violation{Field: field, Message: "is not known to this daemon: the client may be newer"}
}

// unknownField returns the path of the first unknown field in m, or nothing.
func unknownField(m protoreflect.Message, path string) (found string) {
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		number, _, _ := protowire.ConsumeTag(unknown)
		return fmt.Sprintf("%s%d of %s", path, number, m.Descriptor().FullName())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := path + string(f.Name())
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				found = unknownField(v.Message(), name+"."+k.String()+".")
				return found == ""
			})
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				if found = unknownField(v.List().Get(i).Message(), fmt.Sprintf("%s[%d].", name, i)); found != "" {
					break
				}
			}
		case !f.IsList() && !f.IsMap() && f.Message() != nil:
			found = unknownField(v.Message(), name+".")
		}
		return found == ""
	})
	return found
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
