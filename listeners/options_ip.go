package listeners

import (
	"math"

	"golang.org/x/sys/unix"
)

// discoverWords are IP_PMTUDISC_* of linux/in.h; those of IPv6 are the same.
var discoverWords = []string{"dont", "want", "do", "probe", "interface", "omit"}

// ipOptions are those of ip(7) and ipv6(7). One row is for both versions where
// both have it.
var ipOptions = []*Option{
	{
		Name: "ip.hop_limit", Summary: "Time to live of outgoing packets: hops they may take.",
		Type: Int, Min: 1, Max: 255, Networks: OnIP, Effect: Live, Inherited: true,
		Kernel: "IP_TTL", Level: unix.IPPROTO_IP, Number: unix.IP_TTL, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS},
	}, {
		Name: "ip.min_hop_limit", Summary: "Drop packets that arrive with fewer hops left (RFC 5082); 0 takes all.",
		Type: Int, Max: 255, Networks: OnTCP, Effect: Live, Inherited: true,
		Kernel: "IP_MINTTL", Level: unix.IPPROTO_IP, Number: unix.IP_MINTTL, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT},
	}, {
		Name: "ip.mtu_discover", Summary: "How the path MTU is found and kept to.",
		Type: String, Networks: OnIP, Effect: Live, Inherited: true, words: discoverWords,
		Kernel: "IP_MTU_DISCOVER", Level: unix.IPPROTO_IP, Number: unix.IP_MTU_DISCOVER, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER},
	}, {
		Name: "ip.free_bind", Summary: "Bind an address that the host does not have yet.",
		Type: Bool, Networks: OnIP, Effect: Rebind, Inherited: true,
		Kernel: "IP_FREEBIND", Level: unix.IPPROTO_IP, Number: unix.IP_FREEBIND, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND},
	}, {
		Name: "ip.transparent", Summary: "Bind any address, and take connections that are routed here for others.",
		Type: Bool, Networks: OnIP, Effect: Rebind, Inherited: true, Capability: netAdmin,
		Kernel: "IP_TRANSPARENT", Level: unix.IPPROTO_IP, Number: unix.IP_TRANSPARENT, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT},
	}, {
		Name: "ip.multicast_hop_limit", Summary: "Hop limit of outgoing multicast datagrams.",
		Type: Int, Max: 255, Networks: OnUDP, Effect: Live,
		Kernel: "IP_MULTICAST_TTL", Level: unix.IPPROTO_IP, Number: unix.IP_MULTICAST_TTL, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS},
	}, {
		Name: "ip.multicast_loop", Summary: "Let this host have a copy of outgoing multicast datagrams.",
		Type: Bool, Networks: OnUDP, Effect: Live,
		Kernel: "IP_MULTICAST_LOOP", Level: unix.IPPROTO_IP, Number: unix.IP_MULTICAST_LOOP, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP},
	}, {
		Name: "ip.multicast_all", Summary: "Receive what any socket of this host has joined, not only this one.",
		Type: Bool, Networks: OnUDP, Effect: Live,
		Kernel: "IP_MULTICAST_ALL", Level: unix.IPPROTO_IP, Number: unix.IP_MULTICAST_ALL, v6: [2]int{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL},
	}, {
		Name: "ip6.auto_flow_label", Summary: "Let the kernel choose a flow label for each connection.",
		Type: Bool, Networks: OnIP, Effect: Live, Inherited: true, family: unix.AF_INET6,
		Kernel: "IPV6_AUTOFLOWLABEL", Level: unix.IPPROTO_IPV6, Number: unix.IPV6_AUTOFLOWLABEL,
	}, {
		Name: "ip6.dont_fragment", Summary: "Never fragment outgoing packets on this host.",
		Type: Bool, Networks: OnUDP, Effect: Live, family: unix.AF_INET6,
		Kernel: "IPV6_DONTFRAG", Level: unix.IPPROTO_IPV6, Number: unix.IPV6_DONTFRAG,
	}, {
		Name: segmentBytes, Summary: "Send what is longer as several datagrams of this size; 0 is off. Larger than the path MTU, nothing is sent.",
		Type: Bytes, Max: math.MaxUint16, Networks: OnUDP, Effect: Live,
		Kernel: "UDP_SEGMENT", Level: unix.IPPROTO_UDP, Number: unix.UDP_SEGMENT,
	}, {
		Name: "udp6.no_checksum_send", Summary: "Send UDP over IPv6 with a checksum of zero (RFC 6935).",
		Type: Bool, Networks: OnUDP, Effect: Live, family: unix.AF_INET6,
		Kernel: "UDP_NO_CHECK6_TX", Level: unix.IPPROTO_UDP, Number: unix.UDP_NO_CHECK6_TX,
	}, {
		Name: "udp6.no_checksum_receive", Summary: "Accept UDP over IPv6 with a checksum of zero (RFC 6935).",
		Type: Bool, Networks: OnUDP, Effect: Live, family: unix.AF_INET6,
		Kernel: "UDP_NO_CHECK6_RX", Level: unix.IPPROTO_UDP, Number: unix.UDP_NO_CHECK6_RX,
	},
}
