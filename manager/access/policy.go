package access

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Policy narrows what a role is good for. A list that is not there does not
// narrow; an empty one allows nothing of its kind. What only reads is not
// narrowed.
type Policy struct {
	Names     []string `yaml:"names"`     // what names of listeners may begin with
	Addresses []string `yaml:"addresses"` // to bind to: networks, addresses, and paths, of which /dir/ means all below
	Ports     []string `yaml:"ports"`     // to bind to: 8080 or 8000-8999; 0 is one that the kernel chooses
	Handlers  []string `yaml:"handlers"`  // kinds: echo, forward
	Programs  []string `yaml:"programs"`  // of exec, by absolute path or name, among those of exec-allow
	Upstreams []string `yaml:"upstreams"` // to connect to: networks, addresses, names, *.example.com, and paths

	addresses, upstreams places
	ports                [][2]uint16
}

// A Kind is what a request may want.
type Kind string

// The kinds, by the policy's lists.
const (
	Name     Kind = "names"
	Address  Kind = "addresses" // with its port: ports too
	Handler  Kind = "handlers"
	Program  Kind = "programs"
	Upstream Kind = "upstreams"
)

// A Want is one thing that a request wants.
type Want struct {
	Kind  Kind
	Value string // a name, or the URI of an address
}

// places are networks, names and paths.
type places struct {
	networks []netip.Prefix
	names    []string // exact ones, and *.example.com
	paths    []string // exact ones, and /dir/
}

// Handlers are the words that Policy.Handlers knows. Never written to.
var Handlers = []string{"echo", "discard", "reply", "http", "forward", "exec", "remote", "handoff", "daytime", "time", "chargen", "func"}

// compile checks the lists, and reads them.
func (p *Policy) compile() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, list := range []struct {
		name  string
		texts []string
		to    *places
		names bool // may be there
	}{{"addresses", p.Addresses, &p.addresses, false}, {"upstreams", p.Upstreams, &p.upstreams, true}} {
		for _, text := range list.texts {
			if !list.to.add(text, list.names) {
				bad("%s: %q is not a network such as 10.0.0.0/8, an address or a path such as /run/app/", list.name, text)
			}
		}
	}
	for _, text := range p.Ports {
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err != nil || err2 != nil || from > to {
			bad("ports: %q is not a port or a range such as 8000-8999", text)
		}
		p.ports = append(p.ports, [2]uint16{uint16(from), uint16(to)})
	}
	for _, kind := range p.Handlers {
		if !slices.Contains(Handlers, kind) {
			bad("handlers: %q must be one of %s", kind, strings.Join(Handlers, ", "))
		}
	}
	for _, program := range p.Programs {
		if strings.Contains(program, "/") && (!path.IsAbs(program) || path.Clean(program) != program) || program == "" {
			bad("programs: %q must be the absolute path of a program, or a name of exec-allow", program)
		}
	}
	if slices.Contains(p.Names, "") {
		bad("names: an empty beginning is that of every name: leave the list out")
	}
	return errors.Join(faults...)
}

func (p *places) add(text string, names bool) bool {
	if network, err := netip.ParsePrefix(text); err == nil {
		p.networks = append(p.networks, network.Masked())
		return true
	}
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		p.networks = append(p.networks, netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()))
		return true
	}
	switch {
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "@") && len(text) > 1:
		p.paths = append(p.paths, text)
		return !strings.HasPrefix(text, "/") || path.Clean(text) == strings.TrimSuffix(text, "/") || text == "/"
	case names && text != "" && !strings.ContainsAny(text, "/:%[] "):
		p.names = append(p.names, strings.ToLower(strings.TrimSuffix(text, ".")))
		return true
	}
	return false
}

// Permits reports whether the policy allows what is wanted, and if it does not,
// which list is against it.
func (p *Policy) Permits(w Want) (against string, ok bool) {
	if p == nil {
		return "", true
	}
	switch w.Kind {
	case Name:
		ok = p.Names == nil || slices.ContainsFunc(p.Names, func(prefix string) bool { return strings.HasPrefix(w.Value, prefix) })
	case Address:
		if ok = p.Addresses == nil || p.addresses.have(w.Value); ok && !p.port(w.Value) {
			return "ports", false
		}
	case Upstream:
		ok = p.Upstreams == nil || p.upstreams.have(w.Value)
	case Handler:
		ok = p.Handlers == nil || slices.Contains(p.Handlers, w.Value)
	case Program:
		ok = p.Programs == nil || slices.Contains(p.Programs, w.Value)
	}
	return string(w.Kind), ok
}

// apart takes a URI apart: host and port, or path. A URI of no known form is all
// empty, and no list has that.
func apart(uri string) (host, port, file string) {
	scheme, rest, _ := strings.Cut(uri, "://")
	if strings.HasPrefix(scheme, "unix") {
		if strings.HasPrefix(rest, "/") {
			return "", "", path.Clean(rest)
		}
		return "", "", rest
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		return "", "", ""
	}
	if host == "" { // all addresses
		host = "::"
		if strings.HasSuffix(scheme, "4") {
			host = "0.0.0.0"
		}
	}
	return strings.Replace(host, "%25", "%", 1), port, ""
}

// have reports whether the address of a URI is among the places. All addresses
// are one of their own, 0.0.0.0 or [::], which only a network has that has all;
// [::] is those of IPv4 too, unless the scheme ends in 6.
func (p *places) have(uri string) bool {
	host, _, file := apart(uri)
	if file != "" {
		return slices.ContainsFunc(p.paths, func(allowed string) bool {
			return file == allowed || strings.HasPrefix(allowed, "/") && strings.HasSuffix(allowed, "/") && strings.HasPrefix(file, allowed)
		})
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		scheme, _, _ := strings.Cut(uri, ":")
		dual := ip == netip.IPv6Unspecified() && !strings.HasSuffix(scheme, "6")
		return p.network(ip.Unmap().WithZone("")) && (!dual || p.network(netip.IPv4Unspecified()))
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	return host != "" && (slices.Contains(p.names, host) || parent != "" && slices.Contains(p.names, "*."+parent))
}

func (p *places) network(ip netip.Addr) bool {
	return slices.ContainsFunc(p.networks, func(n netip.Prefix) bool {
		return n.Contains(ip) && (!ip.IsUnspecified() || n.Bits() == 0 || n.IsSingleIP())
	})
}

func (p *Policy) port(uri string) bool {
	_, text, file := apart(uri)
	if p.Ports == nil || file != "" {
		return true
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && slices.ContainsFunc(p.ports, func(r [2]uint16) bool { return uint64(r[0]) <= port && port <= uint64(r[1]) })
}

// Lines are the lists for people: "ports: 53, 8000-8999".
func (p *Policy) Lines() []string {
	if p == nil {
		return nil
	}
	var lines []string
	for _, list := range []struct {
		name  string
		texts []string
	}{
		{"names", p.Names}, {"addresses", p.Addresses}, {"ports", p.Ports}, {"handlers", p.Handlers}, {"programs", p.Programs}, {"upstreams", p.Upstreams},
	} {
		if list.texts != nil {
			lines = append(lines, list.name+": "+cmp.Or(strings.Join(list.texts, ", "), "none"))
		}
	}
	return lines
}
