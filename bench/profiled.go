package main

import (
	"net/netip"
	"slices"
	"strconv"
)

// profiled are the workloads of the case profile: those of peers, and some that tell
// more of how a server takes what comes at once.
func profiled() []workload {
	all := workloads()
	at := func(name string) workload {
		return all[slices.IndexFunc(all, func(w workload) bool { return w.name == name })]
	}
	like := func(name, as, what string, clients int, open func(netip.AddrPort) opener) workload {
		w := at(as)
		w.name, w.what, w.clients, w.open, w.programs = name, what, clients, open, nil
		return w
	}
	one := like("udp-1", "udp", "UDP echo, 64 B, 1 socket, one at a time", 1, udpWindowOf(1))
	one.c = []string{"udp", "--single"}
	both := like("forward-bulk-both", "forward-bulk", "forward, both ways, 4 connections", 4, bulkBothTo)
	both.backer, both.c = bulkBoth, []string{"fwd", "--splice", "--pipe", "1048576", "--et"}
	return append(all,
		like("echo-1000", "echo-64", "TCP echo, 64 B, 1,000 connections", 1000, echoTo),
		like("echo-deep", "echo-64", "TCP echo, 64 B, 64 connections, 16 at once", 64, echoDeep(echoSize, 16)),
		like("echo-16k", "echo-64", "TCP echo, 16 KiB, 64 connections", 64, echoOf(16<<10)),
		like("http-deep", "http-64", "HTTP fixed response, 64 connections, 16 at once", 64, httpDeep(16)),
		both, one,
		like("udp-64", "udp", "UDP echo, 64 B, 1 socket x window 64", 1, udpWindowOf(64)),
		like("udp-gso", "udp", "UDP echo, 1,200 B, 4 sockets x window 32 that the sender joins (GSO)", 4, udpOf(32, 1200, true)))
}

func profiledNames() []string {
	var names []string
	for _, w := range profiled() {
		names = append(names, w.name)
	}
	return names
}

// besideReference is the program of --reference with what it is to serve.
func (cfg *config) besideReference(w workload) program {
	return program{name: referenceName, how: "see --reference", udp: w.uri[:3] == "udp", argv: func(_ string, at, to netip.AddrPort) ([]string, error) {
		argv := []string{cfg.reference, w.c[0], strconv.Itoa(int(at.Port()))}
		if w.forwards {
			argv = append(argv, strconv.Itoa(int(to.Port())))
		}
		return append(argv, w.c[1:]...), nil
	}}
}

const referenceName = "reference"
