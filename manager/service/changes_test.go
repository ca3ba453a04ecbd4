package service

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A change of any field of a spec is seen, and known when it shows.
func TestEveryFieldChanges(t *testing.T) {
	fields := (&pb.ListenerSpec{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		before := &pb.Listener{Name: "listeners/web", Spec: &pb.ListenerSpec{}}
		after := proto.Clone(before).(*pb.Listener)
		m := after.GetSpec().ProtoReflect()
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("backlog").MapKey(), protoreflect.ValueOfMessage(structpb.NewNumberValue(5).ProtoReflect()))
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString("tcp://127.0.0.1:0"))
		case f.Enum() != nil:
			values := f.Enum().Values()
			m.Set(f, protoreflect.ValueOfEnum(values.Get(values.Len()-1).Number()))
		case f.Name() == "handler":
			after.Spec.Handler = &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}
		default:
			m.Mutable(f)
		}
		changes := fieldChanges(before, after)
		if len(changes) != 1 {
			t.Errorf("a change of spec.%s is %v", f.JSONName(), changes)
			continue
		}
		if c := changes[0]; c.GetEffect() == pb.OptionSpec_EFFECT_UNSPECIFIED || c.GetAfter() == `""` {
			t.Errorf("a change of spec.%s is %v", f.JSONName(), c)
		}
	}
}
