package listeners

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Balance is how an upstream is chosen for a connection.
type Balance string

// The ways.
const (
	RoundRobin       Balance = "round_robin"       // in turn, by weight
	LeastConnections Balance = "least_connections" // the one with the fewest open for its weight
	SourceHash       Balance = "source_hash"       // by the client's address; most stay when upstreams change
	First            Balance = "first"             // the first healthy one in order
)

var balances = []Balance{RoundRobin, LeastConnections, SourceHash, First}

// Forward relays connections and datagrams both ways to an upstream.
type Forward struct {
	Upstreams      []Upstream    `json:"upstreams"`
	Balance        Balance       `json:"balance,omitempty"`         // empty: RoundRobin
	ConnectTimeout time.Duration `json:"connect_timeout,omitempty"` // 0: 5 s; then the next is tried
	SendProxy      uint32        `json:"send_proxy,omitempty"`      // version of the PROXY header sent first, or before each datagram; 0: none
	Health         *HealthCheck  `json:"health,omitempty"`          // nil: passive only
	Routes         []Route       `json:"routes,omitempty"`          // by the server that TLS asks for; Upstreams are for the rest
	HelloTimeout   time.Duration `json:"hello_timeout,omitempty"`   // to wait for what asks; 0: 5 s
}

// An Upstream is one place to relay to.
type Upstream struct {
	Address string `json:"address"`          // a URI; the host may be a name
	Weight  uint32 `json:"weight,omitempty"` // 0: 1
	Drain   bool   `json:"drain,omitempty"`  // no new connections
}

// A HealthCheck connects to every upstream now and then.
type HealthCheck struct {
	Interval time.Duration `json:"interval,omitempty"` // 0: 2 s
	Timeout  time.Duration `json:"timeout,omitempty"`  // 0: 1 s
	Rise     uint32        `json:"rise,omitempty"`     // successes in a row to come back; 0: 1
	Fall     uint32        `json:"fall,omitempty"`     // failures in a row to be left out; 0: 3
}

// Defaults and bounds.
const (
	defaultConnect  = 5 * time.Second
	defaultInterval = 2 * time.Second
	defaultCheck    = time.Second
	defaultFall     = 3
	maxUpstreams    = 256
	maxWeight       = 1000
)

// Kind is HandlerSpec.Kind.
func (*Forward) Kind() string { return "forward" }

// Datagram is HandlerSpec.Datagram: all upstreams take datagrams.
func (f *Forward) Datagram() bool {
	return !slices.ContainsFunc(f.all(), func(u Upstream) bool { return !u.network().Datagram() })
}

// Stream reports whether all upstreams take connections.
func (f *Forward) Stream() bool {
	return !slices.ContainsFunc(f.all(), func(u Upstream) bool { return u.network().Datagram() })
}

func (u Upstream) network() Network {
	scheme, _, _ := strings.Cut(u.Address, "://")
	return Network(scheme)
}

// Validate is HandlerSpec.Validate.
func (f *Forward) Validate() error {
	var faults []error
	bad := func(field, format string, args ...any) {
		faults = append(faults, &Violation{Field: "spec.handler.forward." + field, Message: fmt.Sprintf(format, args...)})
	}
	if n := len(f.all()); n == 0 || n > maxUpstreams {
		bad("upstreams", "needs an address, such as tcp://10.0.0.1:8080, and takes at most %d", maxUpstreams)
	}
	checkUpstreams("", f.Upstreams, bad)
	f.checkRoutes(bad)
	if f.Balance != "" && !slices.Contains(balances, f.Balance) {
		bad("balance", "%q is not one of %v", f.Balance, balances)
	}
	switch {
	case f.SendProxy > 2:
		bad("send_proxy_protocol", "is %d: the versions are 1 and 2, 0 is none", f.SendProxy)
	case f.SendProxy == 1 && f.Datagram():
		bad("send_proxy_protocol", "is %d, and version 1 is for connections only: datagrams have version 2", f.SendProxy)
	}
	inRange := func(field string, d time.Duration) {
		if d < 0 || d > time.Hour {
			bad(field, "%v is out of range: from 0s, which is the default, to 1h", d)
		}
	}
	inRange("connect_timeout", f.ConnectTimeout)
	inRange("hello_timeout", f.HelloTimeout)
	if h := f.Health; h != nil {
		if len(f.Upstreams) > 0 && f.Datagram() {
			bad("health_check", "is for connections: whether datagrams arrive, only answers tell")
		}
		inRange("health_check.interval", h.Interval)
		inRange("health_check.timeout", h.Timeout)
		if h.Interval > 0 && h.Interval < 100*time.Millisecond {
			bad("health_check.interval", "%v is too short: at least 100ms", h.Interval)
		}
	}
	return errors.Join(faults...)
}

// checkUpstreams tells bad of every fault of those at a field that ends in a
// point.
func checkUpstreams(at string, upstreams []Upstream, bad func(field, format string, args ...any)) {
	for i, u := range upstreams {
		field := fmt.Sprintf("%supstreams[%d]", at, i)
		if err := u.check(); err != nil {
			bad(field+".address", "%v", err)
		}
		if u.Weight > maxWeight {
			bad(field+".weight", "is %d; at most %d", u.Weight, maxWeight)
		}
		if slices.ContainsFunc(upstreams[:i], func(o Upstream) bool { return o.Address == u.Address }) {
			bad(field+".address", "%s is there twice; give it a weight", u.Address)
		}
		if u.network().Datagram() != upstreams[0].network().Datagram() {
			bad(field+".address", "%s and %s: connections are relayed to connections, datagrams to datagrams", u.Address, upstreams[0].Address)
		}
	}
}

// check is ParseAddress, where a host may be a name and must be there.
func (u Upstream) check() error {
	if _, _, ok := u.name(); ok {
		return nil
	}
	a, err := ParseAddress(u.Address)
	switch {
	case err != nil && u.network().ip():
		return fmt.Errorf("%q is no address to connect to: write tcp://10.0.0.1:8080, tcp://[fd00::1]:8080 or tcp://a-name:8080", u.Address)
	case err != nil:
		return err
	case a.Network == Unixpacket:
		return errors.New("unixpacket is not for upstreams")
	case a.Network.ip() && (a.IP.Port() == 0 || a.IP.Addr().IsUnspecified()):
		return fmt.Errorf("%s is no address to connect to: it needs a host and a port", u.Address)
	}
	return nil
}

// name splits an address whose host is a name, which is to be resolved.
func (u Upstream) name() (host string, port uint16, ok bool) {
	scheme, rest, _ := strings.Cut(u.Address, "://")
	if !Network(scheme).ip() {
		return "", 0, false
	}
	host, portText, err := net.SplitHostPort(rest)
	n, errPort := strconv.ParseUint(portText, 10, 16)
	if err != nil || errPort != nil || n == 0 || !isHostname(host) {
		return "", 0, false
	}
	return host, uint16(n), true
}

// isHostname reports whether a host is a name (RFC 1123), not a number.
func isHostname(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	letter := false
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '_':
				letter = true
			case r >= '0' && r <= '9', r == '-':
			default:
				return false
			}
		}
	}
	return letter
}

// New is HandlerSpec.New.
func (f *Forward) New() Handler { return newForwarder(f) }

func (f *Forward) connectTimeout() time.Duration { return orDefault(f.ConnectTimeout, defaultConnect) }

func orDefault[T time.Duration | uint32](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}
