package listeners

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// multicastGroups is tested by name: connections have no groups.
const multicastGroups = "ip.multicast_groups"

// maxGroups bounds the work of one change. The kernel's own limit for IPv4,
// net.ipv4.igmp_max_memberships, is 20 on most hosts.
const maxGroups = 256

// multicastOptions are those for which a number does not do.
var multicastOptions = []*Option{
	{
		Name: "ip.multicast_interface", Summary: "Name of the interface that outgoing multicast datagrams leave by; empty: as the routes say.",
		Type: String, Networks: OnUDP, Effect: Live,
		Kernel: "IP_MULTICAST_IF", Level: unix.IPPROTO_IP, Number: unix.IP_MULTICAST_IF,
		v6:  [2]int{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF},
		get: getMulticastInterface, set: setMulticastInterface,
	}, {
		Name: multicastGroups, Summary: "Multicast groups that are received, such as 239.1.2.3,ff02::1:5%eth0; bind the group, or all addresses.",
		Type: String, Networks: OnUDP, Effect: Live, Clamp: "net.ipv4.igmp_max_memberships",
		Kernel: "MCAST_JOIN_GROUP", Level: unix.IPPROTO_IP, Number: unix.MCAST_JOIN_GROUP,
		v6:    [2]int{unix.IPPROTO_IPV6, unix.MCAST_JOIN_GROUP},
		check: func(v Value) error { _, err := parseGroups(v.text); return err },
		get:   getGroups, set: setGroups, same: sameGroups,
	},
}

// getMulticastInterface asks for the interface. For IPv4 the kernel tells only
// the address that was given with it.
func getMulticastInterface(s *socket) (Value, error) {
	if s.family == unix.AF_INET6 {
		index, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF)
		if err != nil || index == 0 {
			return StringValue(""), os.NewSyscallError("getsockopt IPV6_MULTICAST_IF", err)
		}
		i, err := net.InterfaceByIndex(index)
		if err != nil {
			return Value{}, err
		}
		return StringValue(i.Name), nil
	}
	var ip [4]byte
	if _, err := getsockopt(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &ip); err != nil || ip == [4]byte{} {
		return StringValue(""), err
	}
	all, err := net.Interfaces()
	for _, i := range all {
		if slices.Contains(addressesOf(i), netip.AddrFrom4(ip)) {
			return StringValue(i.Name), nil
		}
	}
	if err == nil {
		err = fmt.Errorf("no interface has %v any more", netip.AddrFrom4(ip))
	}
	return Value{}, err
}

// setMulticastInterface sets it for both versions on an IPv6 socket, which may
// send to IPv4 groups too.
func setMulticastInterface(s *socket, v Value) error {
	req := unix.IPMreqn{}
	if v.text != "" {
		i, err := net.InterfaceByName(v.text)
		if err != nil {
			return fmt.Errorf("interface %q: %w", v.text, unix.ENODEV)
		}
		req.Ifindex = int32(i.Index)
		k := slices.IndexFunc(addressesOf(*i), netip.Addr.Is4)
		switch {
		case k >= 0:
			req.Address = addressesOf(*i)[k].As4()
		case s.family == unix.AF_INET:
			return fmt.Errorf("interface %q has no IPv4 address: %w", v.text, unix.EADDRNOTAVAIL)
		}
	}
	if s.family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, int(req.Ifindex)); err != nil {
			return os.NewSyscallError("setsockopt IPV6_MULTICAST_IF", err)
		}
	}
	return os.NewSyscallError("setsockopt IP_MULTICAST_IF", unix.SetsockoptIPMreqn(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &req))
}

func addressesOf(i net.Interface) (ips []netip.Addr) {
	all, _ := i.Addrs() // one that is gone has none
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			ips = append(ips, p.Addr().Unmap())
		}
	}
	return ips
}

// A group is one that a socket joins, on one interface or on the one that the
// routes say.
type group struct {
	ip    netip.Addr
	iface string
}

func (g group) String() string {
	if g.iface == "" {
		return g.ip.String()
	}
	return g.ip.String() + "%" + g.iface
}

// parseGroups reads groups with commas or blanks between them, and sorts them.
func parseGroups(text string) (groups []group, err error) {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		host, iface, zoned := strings.Cut(word, "%")
		ip, err := netip.ParseAddr(host)
		if err != nil || !ip.IsMulticast() || ip.Is4In6() || zoned && (iface == "" || len(iface) >= unix.IFNAMSIZ) {
			return nil, fmt.Errorf("%.60q is not a multicast group, such as 239.1.2.3, ff02::1:5 or 239.1.2.3%%eth0", word)
		}
		groups = append(groups, group{ip, iface})
	}
	slices.SortFunc(groups, func(a, b group) int {
		if c := a.ip.Compare(b.ip); c != 0 {
			return c
		}
		return strings.Compare(a.iface, b.iface)
	})
	if groups = slices.Compact(groups); len(groups) > maxGroups {
		return nil, fmt.Errorf("has %d groups; at most %d", len(groups), maxGroups)
	}
	return groups, nil
}

func groupsValue(groups []group) Value {
	words := make([]string, len(groups))
	for i, g := range groups {
		words[i] = g.String()
	}
	return StringValue(strings.Join(words, ","))
}

func sameGroups(asked, got Value) bool {
	a, errA := parseGroups(asked.text)
	b, errB := parseGroups(got.text)
	return errA == nil && errB == nil && slices.Equal(a, b)
}

// getGroups asks the kernel for each group that the socket has joined whether it
// is in it still: it has no list of them.
func getGroups(s *socket) (Value, error) {
	var in []group
	for _, g := range s.groups {
		ok, err := s.isIn(g)
		if err != nil {
			return Value{}, err
		}
		if ok {
			in = append(in, g)
		}
	}
	return groupsValue(in), nil
}

// setGroups leaves what is not wanted and joins what is. When one cannot be
// joined, the socket is in those of before.
func setGroups(s *socket, v Value) error {
	want, err := parseGroups(v.text)
	if err != nil {
		return err
	}
	before := slices.Clone(s.groups)
	if err = s.toGroups(want); err != nil {
		err = errors.Join(err, s.toGroups(before))
	}
	return err
}

func (s *socket) toGroups(want []group) error {
	for _, g := range slices.Clone(s.groups) {
		if slices.Contains(want, g) {
			continue
		}
		if err := s.member(unix.MCAST_LEAVE_GROUP, g); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("leave %v: %w", g, err) // EADDRNOTAVAIL: the interface went, and the group with it
		}
		s.groups = slices.DeleteFunc(s.groups, func(have group) bool { return have == g })
	}
	for _, g := range want {
		if slices.Contains(s.groups, g) {
			continue
		}
		if err := s.member(unix.MCAST_JOIN_GROUP, g); err != nil {
			return fmt.Errorf("join %v: %w", g, err)
		}
		s.groups = append(s.groups, g)
	}
	slices.SortFunc(s.groups, func(a, b group) int { return slices.Index(want, a) - slices.Index(want, b) })
	return nil
}

// groupReq is struct group_req of linux/in.h.
type groupReq struct {
	index uint32
	_     uint32
	ip    [128]byte // struct sockaddr_storage
}

// fill writes the group's address as struct sockaddr_in or sockaddr_in6.
func (g group) fill(storage *[128]byte) (level int) {
	family := (*uint16)(unsafe.Pointer(storage))
	if g.ip.Is4() {
		*family = unix.AF_INET
		copy(storage[4:], g.ip.AsSlice())
		return unix.IPPROTO_IP
	}
	*family = unix.AF_INET6
	copy(storage[8:], g.ip.AsSlice())
	return unix.IPPROTO_IPV6
}

// member joins or leaves.
func (s *socket) member(call int, g group) error {
	if g.ip.Is6() && s.family != unix.AF_INET6 || g.ip.Is4() && s.family != unix.AF_INET && !s.asked.dual() {
		return fmt.Errorf("a socket of %v has no such groups: use a listener of its own: %w", s.asked, unix.EAFNOSUPPORT)
	}
	req := groupReq{}
	if g.iface != "" {
		i, err := net.InterfaceByName(g.iface)
		if err != nil {
			return fmt.Errorf("interface %q: %w", g.iface, unix.ENODEV)
		}
		req.index = uint32(i.Index)
	}
	level := g.fill(&req.ip)
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(s.fd), uintptr(level), uintptr(call),
		uintptr(unsafe.Pointer(&req)), unsafe.Sizeof(req), 0)
	switch {
	case errno == unix.ENOBUFS && g.ip.Is4():
		return fmt.Errorf("a socket may be in so many groups as sysctl net.ipv4.igmp_max_memberships says: %w", errno)
	case errno != 0:
		return os.NewSyscallError("setsockopt", errno)
	}
	return nil
}

// groupFilter is struct group_filter of linux/in.h, with room for no source.
type groupFilter struct {
	index uint32
	_     uint32
	ip    [128]byte
	_     [2]uint32 // mode, number of sources
}

// isIn asks the kernel for the sources of a group, which only members can.
func (s *socket) isIn(g group) (bool, error) {
	all, err := net.Interfaces()
	if err != nil {
		return false, err
	}
	for _, i := range all {
		if g.iface != "" && i.Name != g.iface {
			continue
		}
		req := groupFilter{index: uint32(i.Index)}
		level := g.fill(&req.ip)
		_, err := getsockopt(s.fd, level, unix.MCAST_MSFILTER, &req)
		switch {
		case err == nil:
			return true, nil
		case !errors.Is(err, unix.EADDRNOTAVAIL):
			return false, fmt.Errorf("MCAST_MSFILTER: %w", err)
		}
	}
	return false, nil
}
