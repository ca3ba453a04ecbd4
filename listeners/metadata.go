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
	netip.MustParseAddr("169.254.169.252"): true, // nodes of GKE
	netip.MustParseAddr("168.63.129.16"):   true, // Azure's WireServer
	netip.MustParseAddr("192.0.0.192"):     true, // Oracle Classic
}

// nat64 are the prefixes of addresses that have one of IPv4 in them (RFC 6052,
// RFC 8215), and where in them it is, which for local use is the network's choice.
var nat64 = []struct {
	prefix netip.Prefix
	at     [][4]int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), [][4]int{{12, 13, 14, 15}}},
	{netip.MustParsePrefix("64:ff9b:1::/48"), [][4]int{{12, 13, 14, 15}, {6, 7, 9, 10}, {7, 9, 10, 11}, {9, 10, 11, 12}}},
}

// isMetadata reports whether an address is one of these, or leads to one.
func isMetadata(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, n := range nat64 {
		if !n.prefix.Contains(ip) {
			continue
		}
		b := ip.As16()
		for _, at := range n.at {
			if metadata[netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]})] {
				return true
			}
		}
	}
	return metadata[ip]
}

// MayConnect refuses addresses of cloud metadata with EACCES, unless the set was
// told otherwise, and the service manager's socket: it takes what comes from this
// process for the daemon's word. It goes by what a name was resolved to, whenever that was.
func (s *Set) MayConnect(a Address) error {
	if s.reserved != nil && !a.Network.ip() && s.reserved(a.Path) {
		return unix.EACCES
	}
	if !s.metadata && isMetadata(a.IP.Addr()) {
		return unix.EACCES
	}
	return nil
}
