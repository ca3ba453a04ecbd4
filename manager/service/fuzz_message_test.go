package service

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A script is what a fuzzer has chosen: the first byte says what comes after
// the others: nothing, so that every choice is the first, or what looks random
// and is always the same after the same bytes.
type script struct {
	data []byte
	rest *rand.PCG
}

func newScript(data []byte) *script {
	s := &script{data: data}
	if h := fnv.New64a(); len(data) > 0 && data[0]%2 == 1 {
		_, _ = h.Write(data)
		s.rest = rand.NewPCG(h.Sum64(), 1)
	}
	if len(data) > 0 {
		s.data = data[1:]
	}
	return s
}

func (s *script) ended() bool { return len(s.data) == 0 && s.rest == nil }

// n is a number below most.
func (s *script) n(most int) int {
	x := 0
	switch {
	case most <= 1:
	case len(s.data) > 0:
		x = int(s.data[0])
		s.data = s.data[1:]
		if most > 256 && len(s.data) > 0 {
			x |= int(s.data[0]) << 8
			s.data = s.data[1:]
		}
	case s.rest != nil:
		x = int(s.rest.Uint64() >> 1)
	}
	return x % max(most, 1)
}

func (s *script) bytes(most int) []byte {
	n := s.n(most)
	if s.rest != nil && n > len(s.data) {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(s.n(256))
		}
		return p
	}
	n = min(n, len(s.data))
	p := s.data[:n]
	s.data = s.data[n:]
	return p
}

func pick[T any](s *script, of []T) T { return of[s.n(len(of))] }

// hostile are strings that mean nothing good anywhere.
var hostile = []string{
	"", " ", "*", "-", "..", "a\nb", "\x1b[31m", "\x00", "\u202e", "a=b", "%s%n", "(", "name = \"", "NOT NOT", "0", "-1", "1e999", "true", "null",
	"listeners/", "sockets/", "connections/ffffffffffffffff", "sockets/0", "LISTENERS/WEB", strings.Repeat("x", 64), strings.Repeat("(", 300), strings.Repeat("é", 3000),
}

// strange numbers, whatever the type cuts off of them.
var strange = []uint64{
	0, 1, 2, 3, 7, 16, 100, 255, 256, 1000, 1024, 1025, 65535, 65536, 1 << 20, 1<<20 + 1, 1 << 30, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32, math.MaxInt64, 1 << 63,
	math.MaxUint64, math.MaxUint64 - 1, 999_999_999, 1_000_000_000, 315_576_000_000, 315_576_000_001,
}

// A vocabulary is what the strings of requests are made of: what was there at
// the start, and the last that a daemon has answered, by the field that had it.
type vocabulary struct {
	fixed     []string
	addresses []string // of fixed: what stands in for any other address or path
	options   []string // of fixed: their names
	heard     map[protoreflect.Name][]string
}

const mostHeard = 32

// hear keeps the strings of an answer: names, tokens, etags, addresses.
func (v *vocabulary) hear(m protoreflect.Message) {
	eachString(m, func(field protoreflect.Name, text string) string {
		if all := v.heard[field]; len(text) > 0 && len(text) <= 200 && !slices.Contains(all, text) {
			all = append(all, text)
			v.heard[field] = all[max(0, len(all)-mostHeard):]
		}
		return text
	})
}

func (v *vocabulary) has(text string) bool {
	if slices.Contains(v.fixed, text) {
		return true
	}
	for _, all := range v.heard {
		if slices.Contains(all, text) {
			return true
		}
	}
	return false
}

// word is for a field: mostly one that fits.
func (v *vocabulary) word(field protoreflect.Name, s *script) string {
	switch s.n(8) {
	case 0:
		return pick(s, hostile)
	case 1:
		return string(s.bytes(24))
	case 2:
		return pick(s, v.fixed)
	default:
		return pick(s, v.fitting(field))
	}
}

func (v *vocabulary) fitting(field protoreflect.Name) []string {
	switch name := string(field); {
	case strings.HasSuffix(name, "token"):
		return append(v.heard["next_page_token"], append(v.heard["resume_token"], "")...)
	case name == "target" || strings.HasSuffix(name, "able"): // readable, writable
		return append(v.heard["name"], "")
	case name == "options":
		return v.options
	case name == "address" || name == "listen":
		return append(v.heard["uri"], v.addresses...)
	case len(v.heard[field]) > 0:
		return v.heard[field]
	default:
		return v.fixed
	}
}

// aim puts the name of something that is there into a request that has a name.
func (v *vocabulary) aim(m protoreflect.Message, collection string, s *script) {
	fields := m.Descriptor().Fields()
	for _, name := range []protoreflect.Name{"name", "target"} {
		fd := fields.ByName(name)
		if fd == nil || fd.Kind() != protoreflect.StringKind {
			continue
		}
		of := v.heard["name"]
		if name == "name" {
			of = slices.DeleteFunc(slices.Clone(of), func(text string) bool { return !strings.HasPrefix(text, collection) })
		}
		if len(of) > 0 {
			m.Set(fd, protoreflect.ValueOfString(pick(s, of)))
		}
	}
}

// tame keeps a request on this host and in this test: no address and no path
// but those of the vocabulary, and no time so short that things change by
// themselves while others are compared.
func (v *vocabulary) tame(m protoreflect.Message) {
	eachString(m, func(_ protoreflect.Name, text string) string {
		text = strings.ToValidUTF8(text, "?") // grpc would not send it
		if !strings.Contains(text, "/") || v.has(text) {
			return text
		}
		if kind, rest, found := strings.Cut(text, "/"); found && slices.Contains([]string{"listeners", "connections", "sockets"}, kind) && !strings.Contains(rest, "/") {
			return text
		}
		return v.addresses[len(text)%len(v.addresses)]
	})
	eachMessage(m, func(m protoreflect.Message) {
		if m.Descriptor().FullName() != "google.protobuf.Duration" {
			return
		}
		fields := m.Descriptor().Fields()
		seconds, nanos := fields.ByName("seconds"), fields.ByName("nanos")
		d := &durationpb.Duration{Seconds: m.Get(seconds).Int(), Nanos: int32(m.Get(nanos).Int())}
		if d.CheckValid() == nil && d.AsDuration() > 0 && d.AsDuration() < time.Minute {
			m.Set(seconds, protoreflect.ValueOfInt64(3600))
			m.Clear(nanos)
		}
	})
}

// eachMessage calls f with a message and all in it.
func eachMessage(m protoreflect.Message, f func(protoreflect.Message)) {
	f(m)
	m.Range(func(fd protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, x protoreflect.Value) bool {
					eachMessage(x.Message(), f)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range value.List().Len() {
				eachMessage(value.List().Get(i).Message(), f)
			}
		default:
			eachMessage(value.Message(), f)
		}
		return true
	})
}

// eachString puts in the place of every string, keys of maps too, what f makes
// of it.
func eachString(m protoreflect.Message, f func(protoreflect.Name, string) string) {
	eachMessage(m, func(m protoreflect.Message) {
		m.Range(func(fd protoreflect.FieldDescriptor, value protoreflect.Value) bool {
			switch {
			case fd.IsMap():
				stringsOfMap(fd, value.Map(), f)
			case fd.Kind() != protoreflect.StringKind:
			case fd.IsList():
				for i := range value.List().Len() {
					value.List().Set(i, protoreflect.ValueOfString(f(fd.Name(), value.List().Get(i).String())))
				}
			default:
				m.Set(fd, protoreflect.ValueOfString(f(fd.Name(), value.String())))
			}
			return true
		})
	})
}

func stringsOfMap(fd protoreflect.FieldDescriptor, all protoreflect.Map, f func(protoreflect.Name, string) string) {
	type pair struct {
		key   protoreflect.MapKey
		value protoreflect.Value
	}
	var pairs []pair
	all.Range(func(k protoreflect.MapKey, value protoreflect.Value) bool {
		pairs = append(pairs, pair{k, value})
		return true
	})
	for _, p := range pairs {
		all.Clear(p.key)
		if fd.MapValue().Kind() == protoreflect.StringKind {
			p.value = protoreflect.ValueOfString(f(fd.Name(), p.value.String()))
		}
		if fd.MapKey().Kind() == protoreflect.StringKind {
			p.key = protoreflect.ValueOfString(f(fd.Name(), p.key.String())).MapKey()
		}
		all.Set(p.key, p.value)
	}
}

// mutate changes a message at some place.
func (v *vocabulary) mutate(m protoreflect.Message, s *script, depth int) {
	fields := m.Descriptor().Fields()
	if fields.Len() == 0 || depth > 8 {
		return
	}
	fd := fields.Get(s.n(fields.Len()))
	how := s.n(6)
	switch {
	case how == 0:
		m.Clear(fd)
	case fd.IsMap():
		v.mutateMap(m, fd, s, depth)
	case fd.IsList():
		v.mutateList(m, fd, s, depth)
	case fd.Message() != nil:
		if how == 1 {
			m.Set(fd, m.NewField(fd)) // set, and empty
		}
		v.mutate(m.Mutable(fd).Message(), s, depth+1)
	default:
		m.Set(fd, v.scalar(fd, s))
	}
}

func (v *vocabulary) mutateMap(m protoreflect.Message, fd protoreflect.FieldDescriptor, s *script, depth int) {
	all := m.Mutable(fd).Map()
	key := v.scalar(fd.MapKey(), s).MapKey()
	if fd.MapKey().Kind() == protoreflect.StringKind {
		key = protoreflect.ValueOfString(v.word(fd.Name(), s)).MapKey()
	}
	if fd.MapValue().Message() == nil {
		all.Set(key, v.scalar(fd.MapValue(), s))
		return
	}
	v.mutate(all.Mutable(key).Message(), s, depth+1)
}

func (v *vocabulary) mutateList(m protoreflect.Message, fd protoreflect.FieldDescriptor, s *script, depth int) {
	all := m.Mutable(fd).List()
	switch how := s.n(6); {
	case how == 0 && all.Len() > 0:
		all.Truncate(s.n(all.Len()))
	case how == 1 && all.Len() > 0: // one of them many times
		one, times := all.Get(s.n(all.Len())), s.n(300)
		for range times {
			if fd.Message() != nil {
				one = protoreflect.ValueOfMessage(proto.Clone(one.Message().Interface()).ProtoReflect())
			}
			all.Append(one)
		}
	case fd.Message() == nil:
		all.Append(v.scalar(fd, s))
	case how == 2 || all.Len() == 0:
		v.mutate(all.AppendMutable().Message(), s, depth+1)
	default:
		v.mutate(all.Get(s.n(all.Len())).Message(), s, depth+1)
	}
}

// scalar is a value of a field that is no message.
func (v *vocabulary) scalar(fd protoreflect.FieldDescriptor, s *script) protoreflect.Value {
	number := func() uint64 { return pick(s, strange) }
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(s.n(2) == 0)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		if i := s.n(4 * values.Len()); i < 4*values.Len()-1 {
			return protoreflect.ValueOfEnum(values.Get(i % values.Len()).Number())
		}
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(number()))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(v.word(fd.Name(), s))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(slices.Repeat(s.bytes(64), 1+s.n(2)*s.n(2000)))
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		return floatValue(fd, pick(s, []float64{0, 1, -1, 1.5, 127, 4096, 65536, 1e9, 1e18, 1e308, math.NaN(), math.Inf(1), math.Inf(-1)}))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(number()))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(number()))
	default:
		return protoreflect.ValueOfUint32(uint32(number()))
	}
}

func floatValue(fd protoreflect.FieldDescriptor, x float64) protoreflect.Value {
	if fd.Kind() == protoreflect.FloatKind {
		return protoreflect.ValueOfFloat32(float32(x))
	}
	return protoreflect.ValueOfFloat64(x)
}
