package listeners

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// metadata are addresses at which clouds hand out the credentials of the host to
// whoever asks from it. What is forwarded there asks from it.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("169.254.169.254"): true, // most of them
	netip.MustParseAddr("fd00:ec2::254"):   true,
	netip.MustParseAddr("169.254.170.2"):   true, // tasks of ECS
	netip.MustParseAddr("169.254.170.23"):  true, // pods of EKS
	netip.MustParseAddr("fd00:ec2::23"):    true,
	netip.MustParseAddr("100.100.100.200"): true, // Alibaba
	netip.MustParseAddr("fe80::a9fe:a9fe"): true, // OpenStack
	netip.MustParseAddr("fd20:ce::254"):    true, // Google
	netip.MustParseAddr("169.254.42.42"):   true, // Scaleway
	netip.MustParseAddr("fd00:42::42"):     true,
	netip.MustParseAddr("169.254.0.23"):    true, // Tencent
}

// nat64 is the well-known prefix (RFC 6052), whose last four bytes are an
// address of IPv4.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// MayConnect refuses addresses of cloud metadata with EACCES, unless the set was
// told otherwise, and the service manager's socket: it takes what comes from this
// process for the daemon's word. It goes by what a name was resolved to, whenever that was.
func (s *Set) MayConnect(a Address) error {
	if s.reserved != nil && !a.Network.ip() && s.reserved(a.Path) {
		return unix.EACCES
	}
	ip := a.IP.Addr().Unmap().WithZone("")
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if metadata[ip] && !s.metadata {
		return unix.EACCES
	}
	return nil
}
