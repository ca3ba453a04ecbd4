package cli

import (
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// tcpSection lists what is not zero, each in the unit that its name says. It
// goes by the descriptor, so that a fact added to the API needs no line here.
func tcpSection(info *pb.TcpInfo) *section {
	s := &section{title: "TCP_INFO"}
	r := info.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if d, ok := r.Get(f).Interface().(protoreflect.Message); !r.Has(f) || ok && isZeroTime(d) {
			continue
		}
		name := string(f.Name())
		value := factText(f, r.Get(f), name)
		name = strings.TrimSuffix(strings.TrimSuffix(name, "_bytes"), "_bytes_per_second")
		s.add(strings.ReplaceAll(name, "_", " "), value)
	}
	return s
}

func isZeroTime(m protoreflect.Message) bool {
	d, ok := m.Interface().(*durationpb.Duration)
	return ok && d.AsDuration() == 0
}

func factText(f protoreflect.FieldDescriptor, v protoreflect.Value, name string) string {
	if f.Enum() != nil {
		return enumWord(f.Enum(), v.Enum())
	}
	switch v := v.Interface().(type) {
	case protoreflect.List:
		var words []string
		for i := range v.Len() {
			words = append(words, v.Get(i).String())
		}
		return strings.Join(words, ", ")
	case protoreflect.Message:
		if d, ok := v.Interface().(*durationpb.Duration); ok {
			return timeText(d.AsDuration())
		}
		return ""
	case uint32:
		return countText(uint64(v), name)
	case uint64:
		return countText(v, name)
	}
	return v.String()
}

func countText(n uint64, name string) string {
	switch {
	case name == "slow_start_threshold" && n >= math.MaxInt32, strings.HasSuffix(name, "bytes_per_second") && n == math.MaxUint64:
		return "unlimited" // until the kernel has found one, or someone sets it
	case strings.HasSuffix(name, "bytes_per_second"):
		return rate(n)
	case strings.HasSuffix(name, "mss_bytes"), strings.HasSuffix(name, "mtu_bytes"):
		return fmt.Sprintf("%dB", n) // known by heart to the byte
	case strings.HasSuffix(name, "_bytes"), strings.HasPrefix(name, "bytes_"):
		return size(n)
	}
	return fmt.Sprint(n)
}
