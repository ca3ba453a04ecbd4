package listeners

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A raw option is one that the table lacks, by the kernel's own names or
// numbers: so:LEVEL:NAME, such as so:SOL_SOCKET:SO_NOFCS or so:6:47. It is
// set and read as any other, and saved in the spec under one form of its name.
const rawPrefix = "so:"

const (
	maxRaw      = 32  // raw options of one listener
	maxRawBytes = 256 // of one value
)

// IsRaw reports whether the name is one of a raw option.
func IsRaw(name string) bool { return strings.HasPrefix(name, rawPrefix) }

// OptionName returns the one form of a name that has several: so:6:13 is
// so:IPPROTO_TCP:TCP_CONGESTION. Others, known or not, are as they are.
func OptionName(name string) string {
	if o := LookupOption(name); o != nil {
		return o.Name
	}
	return name
}

// rawOption makes the row of a raw option. The error is a Violation without its
// field.
func rawOption(name string) (*Option, *Violation) {
	parts := strings.Split(name, ":")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return nil, &Violation{Message: "is not so:LEVEL:NAME, such as so:SOL_SOCKET:SO_NOFCS or so:6:47", Reason: OptionUnknown}
	}
	level := levelOf(parts[1])
	if level == nil {
		v := &Violation{
			Message: fmt.Sprintf("%.40q is not a level of these sockets: it is one of %s", parts[1], levelNames()), Reason: OptionUnknown,
		}
		if near := nearest(parts[1], levelWords()); near != "" {
			v.Nearest = rawPrefix + near + ":" + parts[2]
		}
		return nil, v
	}
	number, err := strconv.ParseUint(parts[2], 10, 31)
	if known, ok := level.names[parts[2]]; ok {
		number, err = uint64(known), nil
	}
	if err != nil {
		v := &Violation{
			Message: fmt.Sprintf("%.40q is not a name that sockmgr knows at level %s, nor a number", parts[2], level.name),
			Reason:  OptionUnknown,
		}
		if near := nearest(parts[2], level.sorted()); near != "" {
			v.Nearest = rawPrefix + level.name + ":" + near
			v.Message += "; did you mean " + v.Nearest + "?"
		}
		return nil, v
	}
	return level.row(int(number))
}

// row makes the row of one option of a level, or says why it must not be used.
func (l *rawLevel) row(number int) (*Option, *Violation) {
	word, known := l.word(number)
	if o := tableRow(l.number, number); o != nil {
		return nil, &Violation{Message: fmt.Sprintf("%s is in the table, as %s: use that name", word, o.Name), Nearest: o.Name}
	}
	if why := l.refusal(number); why != "" {
		return nil, &Violation{Message: fmt.Sprintf("%s is refused: %s", word, why)}
	}
	o := &Option{
		Name: rawPrefix + l.name + ":" + word, Summary: "An option that the table lacks, as setsockopt(2) has it.",
		Type: Raw, Min: math.MinInt32, Max: math.MaxUint32, Networks: l.networks, Effect: Live, family: l.family,
		Kernel: word, Level: l.number, Number: number, same: sameBytes,
	}
	if !known {
		// Bytes may hold an address of memory, and of an option without a name
		// nobody here knows whether they do.
		o.check = func(v Value) error {
			if v.text != "" {
				return errors.New("sockmgr knows no option with this number, so it takes a whole number only")
			}
			return nil
		}
	}
	o.get = o.getRaw
	o.set = o.setRaw
	o.reset = o.resetRaw
	return o, nil
}

// tableRow returns the row of the table that has the option.
func tableRow(level, number int) *Option {
	at := [2]int{level, number}
	i := slices.IndexFunc(Options, func(o *Option) bool {
		return o.OnSocket() && o.Level == level && o.Number == number && number != 0 || o.v6 == at
	})
	if i < 0 {
		return nil
	}
	return Options[i]
}

// IsRaw reports whether the option is not of the table.
func (o *Option) IsRaw() bool { return o.Type == Raw }

// getRaw reads a number when the kernel has four bytes, else bytes.
func (o *Option) getRaw(s *socket) (Value, error) {
	var data [maxRawBytes]byte
	n, err := getsockopt(s.fd, o.Level, o.Number, &data)
	if err != nil {
		return Value{}, fmt.Errorf("%s: %w", o.Kernel, err)
	}
	if n == 4 {
		return Value{typ: Raw, n: int64(int32(binary.NativeEndian.Uint32(data[:])))}, nil
	}
	return Value{typ: Raw, text: "0x" + hex.EncodeToString(data[:min(n, len(data))])}, nil
}

func (o *Option) setRaw(s *socket, v Value) error {
	data := v.bytes()
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(s.fd), uintptr(o.Level), uintptr(o.Number),
		uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), 0)
	if errno != 0 {
		return os.NewSyscallError("setsockopt "+o.Kernel, errno)
	}
	return nil
}

// resetRaw gives the socket what a new one has.
func (o *Option) resetRaw(s *socket) error {
	fresh, err := unix.Socket(s.family, s.addr.Network.kind().sock|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer sysClose(fresh)
	v, err := o.Get(&socket{fd: fresh, family: s.family, addr: s.addr})
	if err != nil {
		return err // it has no value that could be given back
	}
	return o.Set(s, v)
}

// bytes is a Raw value as setsockopt takes it.
func (v Value) bytes() []byte {
	if digits, ok := strings.CutPrefix(v.text, "0x"); ok {
		data, err := hex.DecodeString(digits)
		if err == nil {
			return data
		}
	}
	return binary.NativeEndian.AppendUint32(nil, uint32(v.n))
}

func sameBytes(asked, got Value) bool { return string(asked.bytes()) == string(got.bytes()) }

// parseRaw reads a number, or bytes as 0x01ff in the order of memory.
func parseRaw(s string) (Value, bool) {
	if digits, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		data, err := hex.DecodeString(digits)
		return Value{typ: Raw, text: "0x" + digits}, err == nil && 0 < len(data) && len(data) <= maxRawBytes
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return Value{typ: Raw, n: n}, err == nil
}

// rows are the options of the table, then the raw ones that the spec has.
func (s Spec) rows() []*Option {
	var raw []*Option
	for name := range s.Options {
		if IsRaw(name) {
			raw = append(raw, LookupOption(name))
		}
	}
	if raw == nil {
		return Options
	}
	slices.SortFunc(raw, func(a, b *Option) int { return strings.Compare(a.Name, b.Name) })
	return slices.Concat(Options, raw)
}

// likeAsked writes what was read as it was asked, where it is the same: bytes,
// or a number above 2^31, which the kernel's int has not.
func (r *Result) likeAsked() {
	for _, v := range []*Value{&r.Previous, &r.Effective} {
		if v.typ == Raw && r.Requested.typ == Raw && sameBytes(r.Requested, *v) {
			*v = r.Requested
		}
	}
}
