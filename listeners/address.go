package listeners

import (
	"encoding"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// A Network is the kind of a socket, by the name it has in package net.
type Network string

// The networks.
const (
	TCP        Network = "tcp"        // IPv4, IPv6, or both for [::]
	TCP4       Network = "tcp4"       // IPv4 only
	TCP6       Network = "tcp6"       // IPv6 only
	UDP        Network = "udp"        // as tcp
	UDP4       Network = "udp4"       // as tcp4
	UDP6       Network = "udp6"       // as tcp6
	Unix       Network = "unix"       // byte stream
	Unixgram   Network = "unixgram"   // datagrams
	Unixpacket Network = "unixpacket" // connections that keep message boundaries
)

// A networkKind is what the sockets of a network are.
type networkKind struct {
	base  Network
	class NetworkSet
	sock  int // type for socket(2)
}

// kind is asked for several times for each connection: a switch takes less than a
// map does. What is no network has the zero kind.
func (n Network) kind() networkKind {
	switch n {
	case TCP, TCP4, TCP6:
		return networkKind{TCP, OnTCP, unix.SOCK_STREAM}
	case UDP, UDP4, UDP6:
		return networkKind{UDP, OnUDP, unix.SOCK_DGRAM}
	case Unix:
		return networkKind{Unix, OnUnix, unix.SOCK_STREAM}
	case Unixgram:
		return networkKind{Unixgram, OnUnixgram, unix.SOCK_DGRAM}
	case Unixpacket:
		return networkKind{Unixpacket, OnUnixpacket, unix.SOCK_SEQPACKET}
	}
	return networkKind{}
}

// Base is the network without the IP version: tcp for tcp4.
func (n Network) Base() Network { return n.kind().base }

// Datagram reports whether sockets of n have no connections.
func (n Network) Datagram() bool { return n.kind().sock == unix.SOCK_DGRAM }

// Class is the set that has only n in it.
func (n Network) Class() NetworkSet { return n.kind().class }

func (n Network) ip() bool { return n.Class()&OnIP != 0 }

// NetworkSet is a set of networks, for rows of the option table.
type NetworkSet uint8

// The sets.
const (
	OnTCP NetworkSet = 1 << iota
	OnUDP
	OnUnix
	OnUnixgram
	OnUnixpacket
	OnIP       = OnTCP | OnUDP
	OnPath     = OnUnix | OnUnixgram | OnUnixpacket
	OnStream   = OnTCP | OnUnix | OnUnixpacket
	OnDatagram = OnUDP | OnUnixgram
	OnAll      = OnStream | OnDatagram
)

// Networks lists the set, in the order of the constants.
func (s NetworkSet) Networks() []Network {
	var all []Network
	for i, n := range []Network{TCP, UDP, Unix, Unixgram, Unixpacket} {
		if s&(1<<i) != 0 {
			all = append(all, n)
		}
	}
	return all
}

// String lists the set for people: "tcp, unix".
func (s NetworkSet) String() string {
	names := make([]string, 0, 5)
	for _, n := range s.Networks() {
		names = append(names, string(n))
	}
	return strings.Join(names, ", ")
}

// An Address is where a socket is bound or connected to. It is comparable, and
// its String is the URI that ParseAddress takes.
type Address struct {
	Network Network
	IP      netip.AddrPort // tcp and udp
	Path    string         // unix: a path, or @name in the abstract namespace
}

var (
	_ encoding.TextMarshaler   = Address{}
	_ encoding.TextUnmarshaler = (*Address)(nil)
)

// String returns the URI: tcp://127.0.0.1:8080, udp://[::]:53,
// unix:///run/app.sock, unixgram://@name.
func (a Address) String() string {
	switch {
	case a == Address{}:
		return ""
	case a.Network.ip() && a.IP.Addr().Is4(): // most, and lists have thousands: one allocation
		var room [len("tcp4://255.255.255.255:65535")]byte
		return string(a.IP.AppendTo(append(append(room[:0], a.Network...), "://"...)))
	case a.Network.ip():
		// RFC 6874: the % before a zone is written %25.
		return string(a.Network) + "://" + strings.Replace(a.IP.String(), "%", "%25", 1)
	default:
		return string(a.Network) + "://" + a.Path
	}
}

// MarshalText returns the URI.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText parses a URI.
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAddress(string(text))
	return err
}

// ParseAddress parses the URI of an address to listen on. IP addresses are
// numbers: a name may mean another address tomorrow. An empty host means all
// addresses: of both IP versions for tcp:// and udp://.
func ParseAddress(uri string) (Address, error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	n := Network(scheme)
	if !ok || n.Base() == "" {
		return Address{}, fmt.Errorf("%q is not an address: write tcp://127.0.0.1:8080, udp://[::]:53 or unix:///run/app.sock (schemes tcp tcp4 tcp6 udp udp4 udp6 unix unixgram unixpacket)", uri)
	}
	if n.ip() {
		ip, err := parseIP(n, rest)
		return Address{Network: n, IP: ip}, err
	}
	path, err := parsePath(rest)
	return Address{Network: n, Path: path}, err
}

func parseIP(n Network, hostport string) (none netip.AddrPort, err error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return none, fmt.Errorf("%q is not host:port, such as 127.0.0.1:8080 or [::1]:8080", hostport)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return none, fmt.Errorf("port %q is not a number from 0 to 65535", portText)
	}
	v4, v6 := strings.HasSuffix(string(n), "4"), strings.HasSuffix(string(n), "6")
	if host == "" {
		host = "::"
		if v4 {
			host = "0.0.0.0"
		}
	}
	ip, err := netip.ParseAddr(strings.Replace(host, "%25", "%", 1)) // RFC 6874 writes the zone's % so
	switch {
	case err != nil:
		return none, fmt.Errorf("%q is not an IP address; names are not resolved for listening: write 127.0.0.1 or [::1] for localhost", host)
	case ip.Is4In6() && v6, ip.Is4() && v6:
		return none, fmt.Errorf("%s is not an IPv6 address, and %s takes no other", host, n)
	case ip.Is6() && !ip.Is4In6() && v4:
		return none, fmt.Errorf("%s is not an IPv4 address, and %s takes no other", host, n)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
}

// maxPath is what sockaddr_un holds, less the zero byte.
const maxPath = 107

func parsePath(path string) (string, error) {
	for _, r := range path {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return "", fmt.Errorf("path %q has a control character or is not UTF-8", path)
		}
	}
	switch {
	case strings.HasPrefix(path, "@") && len(path) > 1:
	case strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") && filepath.Clean(path) != "/":
		path = filepath.Clean(path)
	default:
		return "", fmt.Errorf("%q is neither an absolute path, unix:///run/app.sock, nor an abstract name, unix://@app", path)
	}
	if len(path) > maxPath {
		return "", fmt.Errorf("path %q has %d bytes; the kernel takes at most %d", path, len(path), maxPath)
	}
	return path, nil
}

// dual reports whether a socket at a serves IPv4 too: [::] as tcp:// or udp://.
func (a Address) dual() bool {
	return a.IP.Addr().Is6() && a.IP.Addr().IsUnspecified() && !strings.HasSuffix(string(a.Network), "6")
}

// abstract reports whether a has a name without a file.
func (a Address) abstract() bool { return strings.HasPrefix(a.Path, "@") }

// sockaddr returns a for bind(2), and the address family.
func (a Address) sockaddr() (unix.Sockaddr, int, error) {
	if !a.Network.ip() {
		return &unix.SockaddrUnix{Name: a.Path}, unix.AF_UNIX, nil
	}
	ip, port := a.IP.Addr(), int(a.IP.Port())
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: port}, unix.AF_INET, nil
	}
	sa := &unix.SockaddrInet6{Addr: ip.As16(), Port: port}
	if zone := ip.Zone(); zone != "" {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, 0, &Fault{
				Reason: AddressNotAvailable, Message: fmt.Sprintf("%v: there is no interface %q", a, zone), Err: err,
				Fix: "ip link lists the interfaces", Meta: map[string]string{"address": a.String()},
			}
		}
		sa.ZoneId = uint32(ifi.Index)
	}
	return sa, unix.AF_INET6, nil
}

// addressOf is the Address of what getsockname or getpeername returned.
func addressOf(n Network, sa unix.Sockaddr) Address {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return Address{Network: n, IP: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))}
	case *unix.SockaddrInet6:
		return Address{Network: n, IP: netip.AddrPortFrom(withZone(netip.AddrFrom16(sa.Addr), sa.ZoneId), uint16(sa.Port))}
	case *unix.SockaddrUnix:
		if sa.Name == "@" { // what x/sys makes of no name at all
			return Address{Network: n}
		}
		return Address{Network: n, Path: sa.Name}
	default:
		return Address{Network: n}
	}
}

// withZone unmaps an IPv4 address and names the zone of a scoped one.
func withZone(ip netip.Addr, zone uint32) netip.Addr {
	if zone == 0 || ip.Is4In6() {
		return ip.Unmap()
	}
	if ifi, err := net.InterfaceByIndex(int(zone)); err == nil {
		return ip.WithZone(ifi.Name)
	}
	return ip.WithZone(strconv.Itoa(int(zone))) // the interface is gone
}
