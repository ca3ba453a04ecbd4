package listeners

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An Effect is when a change of an option shows.
type Effect uint8

// The effects.
const (
	Live           Effect = iota + 1 // at once, on the listener and its open connections
	NewConnections                   // on connections accepted from now on
	Rebind                           // only on a new socket
)

// An Option is one row of the table: all there is to know about one thing that
// can be tuned.
type Option struct {
	Name       string
	Summary    string // one sentence
	Type       Type
	Min, Max   int64 // for Int and Bytes as they are, for Duration in nanoseconds
	Networks   NetworkSet
	Effect     Effect
	Inherited  bool   // accepted TCP sockets have it from the listener
	Kernel     string // its name in the kernel's headers; empty: the daemon's own
	Level      int    // for setsockopt
	Number     int    // for setsockopt
	Capability string // that the kernel asks for
	Clamp      string // sysctl that limits it
	Default    Value  // Null: what the kernel gives a new socket

	v6        [2]int          // level and number of an IPv6 socket; there both are set, since it may serve IPv4 too
	family    int             // AF_INET6: only of IPv6 sockets
	words     []string        // of a String: the words for 0, 1, 2, ...
	list      func() []string // of a String: the words that this host knows
	unlimited bool            // all ones is no limit, which is Null
	lock      int             // bit of SO_BUF_LOCK: the kernel tunes the size until it is set
	late      bool            // listen(2) takes it back: it is set again after

	unit    time.Duration                  // of a Duration in the kernel
	tunable func(t *Tunables) *int64       // where the daemon keeps it, if it is its own
	get     func(s *socket) (Value, error) // instead of getsockopt
	set     func(s *socket, v Value) error // instead of setsockopt
	check   func(v Value) error            // beyond type and range
	same    func(asked, got Value) bool    // instead of asked == got
	reset   func(s *socket) error          // instead of setting the default
}

// Tunables are the settings that the daemon itself acts on. Loop only.
type Tunables struct {
	IdleTimeout       time.Duration // 0: none
	MaxConnections    int64         // 0: no limit but that of descriptors
	ReadBuffer        int64         // most that is read, or kept for the handler, at once
	WriteBuffer       int64         // most that is kept for the peer
	WriteTimeout      time.Duration // 0: none
	MaxAge            time.Duration // 0: none
	MaxPerSource      int64         // 0: no limit
	SourcePrefixV4    int64         // bits of an address that tell one source from another
	SourcePrefixV6    int64
	AcceptRate        int64 // connections a second; 0: no limit
	AcceptBurst       int64 // 0: AcceptRate
	ReadRate          int64 // bytes a second of each connection; 0: no limit
	WriteRate         int64
	ListenerReadRate  int64 // of all together
	ListenerWriteRate int64
	TotalWriteBuffer  int64         // kept for all peers together; 0: no limit but the daemon's
	RequestTimeout    time.Duration // http; 0: none
	KeepaliveTimeout  time.Duration // http; 0: none
	MaxRequestBody    int64         // http
	UpstreamWait      time.Duration // forward; 0: refuse at once
	SessionTimeout    time.Duration // forward, of datagrams
	MaxSessions       int64         // forward, of datagrams
	MaxProcesses      int64         // exec; 0: no limit
	MaxReply          int64         // bytes of an answer to a shorter datagram
	ReplyRate         int64         // answers a second to one network; 0: no limit
	Durability        int64         // a place in the words of the option
	Faults            Faults
}

// Parse gives v, as it came from a client or a file, the option's type and
// checks its range. Null passes: it means the default.
func (o *Option) Parse(v Value) (Value, error) {
	v, err := v.as(o.Type)
	if err != nil || v.typ == Null {
		return v, err
	}
	if o.Type != Bool && o.Type != String && (v.n < o.Min || v.n > o.Max) {
		bound := func(n int64) Value { return Value{typ: o.Type, n: n} }
		return v, fmt.Errorf("%v is out of range: from %v to %v", v, bound(o.Min), bound(o.Max))
	}
	if words := o.Choices(); words != nil && !slices.Contains(words, v.text) {
		return v, fmt.Errorf("%q is not one of %s", v.text, strings.Join(words, ", "))
	}
	if o.check != nil {
		err = o.check(v)
	}
	return v, err
}

// Choices are the words that a String may be, where only some may.
func (o *Option) Choices() []string {
	if o.list != nil {
		return o.list()
	}
	return o.words
}

// Range returns the least and the greatest value, of types that have them.
func (o *Option) Range() (least, greatest int64, ok bool) {
	return o.Min, o.Max, o.Type == Int || o.Type == Bytes || o.Type == Duration || o.Type == Raw
}

// OnSocket reports whether the option is one of a socket, not of the daemon.
func (o *Option) OnSocket() bool { return o.tunable == nil }

// OnConnection reports whether it can be set on an open connection.
func (o *Option) OnConnection() bool {
	return o.OnSocket() && o.Effect == Live && o.Name != backlog && o.Name != unixMode && o.Name != incomingCPU
}

// isFor reports whether a bound socket has the option. An abstract name has no
// file, so no mode.
func (o *Option) isFor(s *socket) bool {
	return s.fd >= 0 && o.Networks&s.addr.Network.Class() != 0 && (o.Name != unixMode || !s.addr.abstract()) &&
		(o.family == 0 || o.family == s.family) && (o.Name != backlog || !s.shut) // listen(2) would end the refusing
}

// Get reads the option from the kernel.
func (o *Option) Get(s *socket) (Value, error) {
	if o.get != nil {
		return o.get(s)
	}
	level, number := o.at(s)
	if o.Type == String && o.words == nil {
		text, err := unix.GetsockoptString(s.fd, level, number)
		return StringValue(text), os.NewSyscallError("getsockopt "+o.Kernel, err)
	}
	n, err := unix.GetsockoptInt(s.fd, level, number)
	if err != nil {
		return Value{}, os.NewSyscallError("getsockopt "+o.Kernel, err)
	}
	v := Value{typ: o.Type, n: int64(n)}
	switch {
	case o.unlimited && n == -1:
		return Value{}, nil
	case o.words != nil:
		return StringValue(o.word(n)), nil
	case o.Type == Bool && n != 0:
		v.n = 1
	case o.Type == Duration:
		v.n *= int64(o.unit)
	}
	return v, nil
}

// Set gives it to the kernel.
func (o *Option) Set(s *socket, v Value) error {
	if o.set != nil {
		return o.set(s, v)
	}
	level, number := o.at(s)
	n := int(v.n)
	switch {
	case v.typ == Null && o.unlimited:
		n = -1
	case o.words != nil:
		n = slices.Index(o.words, v.text)
	case o.Type == String:
		return os.NewSyscallError("setsockopt "+o.Kernel, unix.SetsockoptString(s.fd, level, number, v.text))
	case o.Type == Duration:
		n = int((time.Duration(v.n) + o.unit - 1) / o.unit) // never less than was asked
	}
	err := sysSetInt(s.fd, level, number, n)
	if err == nil && level != o.Level {
		err = sysSetInt(s.fd, o.Level, o.Number, n)
	}
	return os.NewSyscallError("setsockopt "+o.Kernel, err)
}

// at is where the kernel has the option of a socket.
func (o *Option) at(s *socket) (level, number int) {
	if s.family == unix.AF_INET6 && o.v6 != [2]int{} {
		return o.v6[0], o.v6[1]
	}
	return o.Level, o.Number
}

// number is what a Tunable keeps of v.
func (o *Option) number(v Value) int64 {
	if o.words != nil {
		return int64(slices.Index(o.words, v.text))
	}
	return v.n
}

// value is number the other way.
func (o *Option) value(n int64) Value {
	if o.words != nil {
		return StringValue(o.words[n])
	}
	return Value{typ: o.Type, n: n}
}

func (o *Option) word(n int) string {
	if n < 0 || n >= len(o.words) {
		return strconv.Itoa(n) // of a newer kernel
	}
	return o.words[n]
}

// give sets v, or the default for Null.
func (o *Option) give(s *socket, v Value) error {
	if v.typ == Null {
		return o.Reset(s)
	}
	return o.Set(s, v)
}

// Reset gives the socket the option's default back.
func (o *Option) Reset(s *socket) error {
	if o.reset != nil {
		return o.reset(s)
	}
	if o.unlimited || o.Name == linger { // off, which has no number
		return o.Set(s, Value{})
	}
	def, _ := o.Probe()
	return o.Set(s, def)
}

// Took reports whether the kernel took what was asked.
func (o *Option) Took(asked, got Value) bool {
	if o.same != nil {
		return o.same(asked, got)
	}
	return asked == got
}

// ClampValue reads the sysctl that limits the option. ok is false when there
// is none or it cannot be read.
func (o *Option) ClampValue() (n int64, ok bool) {
	if o.Clamp == "" {
		return 0, false
	}
	return Sysctl(o.Clamp)
}

// Sysctl reads a number. ok is false when there is none of that name.
func Sysctl(name string) (n int64, ok bool) {
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// Probe makes a socket that the option is for and asks the kernel whether it
// knows it, and what its default is.
func (o *Option) Probe() (def Value, supported bool) {
	if !o.OnSocket() || o.Default.typ != Null {
		return o.Default, true
	}
	domain, n := unix.AF_INET, o.Networks.Networks()[0]
	switch {
	case !n.ip():
		domain = unix.AF_UNIX
	case o.family != 0:
		domain = o.family
	}
	fd, err := unix.Socket(domain, n.kind().sock|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Value{}, true // it cannot be told; the change itself will tell
	}
	defer sysClose(fd)
	def, err = o.Get(&socket{fd: fd, family: domain, addr: Address{Network: n}})
	return def, !errors.Is(err, unix.ENOPROTOOPT)
}

// LookupOption returns the named row of the table, or makes that of a raw
// option; nil when there is none.
func LookupOption(name string) *Option {
	if IsRaw(name) {
		o, _ := rawOption(name)
		return o
	}
	return optionByName[name]
}

var optionByName = func() map[string]*Option {
	byName := make(map[string]*Option, len(Options))
	for _, o := range Options {
		byName[o.Name] = o
	}
	return byName
}()

// nearestOption returns the name that was probably meant, or nothing.
func nearestOption(name string) string {
	best, least := "", 1+len(name)/3
	for _, o := range Options {
		d := distance(name, o.Name)
		if _, last, dotted := strings.Cut(o.Name, "."); dotted {
			d = min(d, distance(name, last))
		}
		if d <= least {
			best, least = o.Name, d-1
		}
	}
	return best
}

// distance is how many letters must be changed, added or dropped to make b of
// a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := above
			if a[i] != b[j] {
				change++
			}
			above = row[j+1]
			row[j+1] = min(change, above+1, row[j]+1)
		}
	}
	return row[len(b)]
}
