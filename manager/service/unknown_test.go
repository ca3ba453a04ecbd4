package service

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// In a set an unknown field is found wherever a message can be in a listener, and
// nowhere where there is none: isBare, which goes by the fields that it knows, has
// missed none of them.
func TestUnknownEverywhere(t *testing.T) {
	strange := protowire.AppendVarint(protowire.AppendTag(nil, 7777, protowire.VarintType), 1)
	request := func(l *pb.Listener) *pb.ApplyListenersRequest {
		return &pb.ApplyListenersRequest{Listeners: []*pb.Listener{{Name: "a"}, l}}
	}
	count := 0
	// try puts an unknown field into each message that parent can have, at any depth, and
	// takes it out again.
	var try func(other *pb.Listener, parent protoreflect.Message, depth int)
	try = func(other *pb.Listener, parent protoreflect.Message, depth int) {
		parent.SetUnknown(strange)
		if err := checkKnown(request(other)); err == nil {
			t.Errorf("not found in %s: %v", parent.Descriptor().FullName(), other)
		}
		parent.SetUnknown(nil)
		if err := checkKnown(request(other)); err != nil {
			t.Errorf("there is none, but %v", err)
		}
		if count++; depth == 0 {
			return
		}
		for i := range parent.Descriptor().Fields().Len() {
			f := parent.Descriptor().Fields().Get(i)
			switch {
			case f.IsMap() && f.MapValue().Message() != nil:
				v := parent.Mutable(f).Map().NewValue()
				parent.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), v)
				try(other, v.Message(), depth-1)
			case f.Message() == nil || f.IsMap():
				continue
			case f.IsList():
				try(other, parent.Mutable(f).List().AppendMutable().Message(), depth-1)
			default:
				try(other, parent.Mutable(f).Message(), depth-1)
			}
			parent.Clear(f)
		}
	}
	l := &pb.Listener{}
	try(l, l.ProtoReflect(), 4)
	l = &pb.Listener{Spec: &pb.ListenerSpec{Handler: &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}}}
	for _, m := range []proto.Message{l, l.Spec, l.Spec.Handler, l.Spec.GetHandler().GetEcho()} {
		try(l, m.ProtoReflect(), 0)
	}
	if count < 40 {
		t.Errorf("only %d messages were looked at", count)
	}
	for _, l := range []*pb.Listener{nil, {Spec: &pb.ListenerSpec{Handler: &pb.Handler{Kind: &pb.Handler_Echo{}}}}} {
		if err := checkKnown(request(l)); err != nil {
			t.Errorf("%v: %v", l, err)
		}
	}
}
