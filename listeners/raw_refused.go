package listeners

import "golang.org/x/sys/unix"

// The options that are never used raw, by level and number, so that a number
// does not get round a name. IP_BASE... of the packet filter: see refusal.
var (
	refusedSocket = map[int]string{
		unix.SO_ATTACH_FILTER: refuseFilter, unix.SO_DETACH_FILTER: refuseFilter, unix.SO_ATTACH_BPF: refuseFilter,
		unix.SO_LOCK_FILTER: refuseFilter, unix.SO_ATTACH_REUSEPORT_CBPF: refuseFilter, unix.SO_ATTACH_REUSEPORT_EBPF: refuseFilter,
		unix.SO_DETACH_REUSEPORT_BPF: refuseFilter,
		unix.SO_BINDTOIFINDEX:        "it is bind_to_device by another name: use that",
		unix.SO_ERROR:                refuseRead,
		unix.SO_RCVTIMEO:             refuseBlock, unix.SO_SNDTIMEO: refuseBlock, unix.SO_RCVTIMEO_NEW: refuseBlock, unix.SO_SNDTIMEO_NEW: refuseBlock,
		unix.SO_PASSPIDFD: "it would put descriptors into the daemon's table", unix.SO_PEERPIDFD: "it would put descriptors into the daemon's table",
		unix.SO_PASSSEC: refuseControl, unix.SO_RXQ_OVFL: refuseControl, unix.SO_TIMESTAMP: refuseControl, unix.SO_TIMESTAMPNS: refuseControl,
		unix.SO_TIMESTAMP_NEW: refuseControl, unix.SO_TIMESTAMPNS_NEW: refuseControl, unix.SO_RCVMARK: refuseControl,
		unix.SO_RCVPRIORITY: refuseControl, unix.SO_INQ: refuseControl,
		unix.SO_TIMESTAMPING: refuseErrors, unix.SO_TIMESTAMPING_NEW: refuseErrors, unix.SO_TXTIME: refuseErrors,
		unix.SO_WIFI_STATUS: refuseErrors, unix.SO_SELECT_ERR_QUEUE: refuseErrors,
		unix.SO_DEVMEM_DONTNEED: refuseMemory, unix.SO_DEVMEM_DMABUF: refuseMemory, unix.SO_DEVMEM_LINEAR: refuseMemory,
	}
	refusedTCP = map[int]string{
		unix.TCP_REPAIR: refuseRepair, unix.TCP_REPAIR_QUEUE: refuseRepair, unix.TCP_QUEUE_SEQ: refuseRepair,
		unix.TCP_REPAIR_OPTIONS: refuseRepair, unix.TCP_REPAIR_WINDOW: refuseRepair, 42: refuseRepair, // TCP_AO_REPAIR
		unix.TCP_ULP: refuseULP, unix.TCP_ZEROCOPY_RECEIVE: refuseMemory, unix.TCP_INQ: refuseControl, unix.TCP_SAVED_SYN: refuseRead,
		unix.TCP_MD5SIG: refuseSecret, unix.TCP_MD5SIG_EXT: refuseSecret, unix.TCP_FASTOPEN_KEY: refuseSecret,
		38: refuseSecret, 39: refuseSecret, 40: refuseSecret, 41: refuseSecret, // TCP_AO_*
		unix.TCP_FASTOPEN_CONNECT: refuseConnect,
	}
	refusedUDP = map[int]string{
		unix.UDP_CORK: "no datagram would leave", unix.UDP_ENCAP: refuseULP,
		unix.UDP_GRO: refuseDaemon,
	}
	refusedIP = map[int]string{
		unix.IP_PKTINFO: refuseDaemon, unix.IP_HDRINCL: refuseDaemon,
		unix.IP_RECVERR: refuseErrors, unix.IP_RECVERR_RFC4884: refuseErrors,
		unix.IP_RECVOPTS: refuseControl, unix.IP_RETOPTS: refuseControl, unix.IP_RECVTTL: refuseControl, unix.IP_RECVTOS: refuseControl,
		unix.IP_PASSSEC: refuseControl, unix.IP_RECVORIGDSTADDR: refuseControl, unix.IP_CHECKSUM: refuseControl,
		unix.IP_RECVFRAGSIZE: refuseControl, unix.IP_PKTOPTIONS: refuseControl,
		unix.IP_IPSEC_POLICY: refuseIPsec, unix.IP_XFRM_POLICY: refuseIPsec, unix.IP_BIND_ADDRESS_NO_PORT: refuseConnect,
		unix.IP_ROUTER_ALERT: "it is for raw sockets", unix.IP_NODEFRAG: "it is for raw sockets",
	}
	refusedIP6 = map[int]string{
		unix.IPV6_V6ONLY: refuseAddress, unix.IPV6_ADDRFORM: "it makes another kind of socket of it",
		unix.IPV6_RECVPKTINFO: refuseDaemon, unix.IPV6_2292PKTINFO: refuseDaemon, unix.IPV6_HDRINCL: refuseDaemon,
		unix.IPV6_RECVERR: refuseErrors, unix.IPV6_RECVERR_RFC4884: refuseErrors,
		unix.IPV6_2292HOPOPTS: refuseControl, unix.IPV6_2292DSTOPTS: refuseControl, unix.IPV6_2292RTHDR: refuseControl,
		unix.IPV6_2292HOPLIMIT: refuseControl, unix.IPV6_2292PKTOPTIONS: refuseMemory, unix.IPV6_RECVHOPLIMIT: refuseControl,
		unix.IPV6_RECVHOPOPTS: refuseControl, unix.IPV6_RECVRTHDR: refuseControl, unix.IPV6_RECVDSTOPTS: refuseControl,
		unix.IPV6_RECVPATHMTU: refuseControl, unix.IPV6_RECVTCLASS: refuseControl, unix.IPV6_RECVORIGDSTADDR: refuseControl,
		unix.IPV6_RECVFRAGSIZE: refuseControl, 11: refuseControl, // IPV6_FLOWINFO
		unix.IPV6_IPSEC_POLICY: refuseIPsec, unix.IPV6_XFRM_POLICY: refuseIPsec, unix.IPV6_ROUTER_ALERT: "it is for raw sockets",
		unix.IPV6_CHECKSUM: "it is for raw sockets",
		64:                 refuseHost, 65: refuseHost, 68: refuseHost, 69: refuseHost, // IP6T_*
	}
)
