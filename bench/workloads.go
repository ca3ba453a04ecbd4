package main

import (
	"net/netip"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A workload is one kind of load on every server that can take it.
type workload struct {
	name, what string
	unit       string // of what is counted
	clients    int
	open       func(netip.AddrPort) opener
	forwards   bool   // to a backend, which the load serves
	backer     backer // that serves it; nil: it sends back what comes
	uri        string
	net        func(*contender) netip.AddrPort // where the Go net server has it
	programs   []program
	c          []string // what perf's cref, or who is called like it, serves it with
}

// workloads are all there are. socat forwards datagrams too, but gives some to the
// wrong sender when several begin at once, so that it is not measured.
func workloads() []workload {
	echo := func(c *contender) netip.AddrPort { return c.echo }
	web := func(c *contender) netip.AddrPort { return c.http }
	forward := func(c *contender) netip.AddrPort { return c.forward }
	tcp := "tcp://127.0.0.1:0"
	forwarders := []program{haproxy(haproxyForward), nginx(nginxForward), socat(socatForward)}
	return []workload{
		{name: "echo-1", what: "TCP echo, 64 B, 1 connection", unit: "echo", clients: 1, open: echoTo, uri: tcp, net: echo, programs: []program{socat(socatEcho)}, c: []string{"echo"}},
		{name: "echo-64", what: "TCP echo, 64 B, 64 connections", unit: "echo", clients: 64, open: echoTo, uri: tcp, net: echo, programs: []program{socat(socatEcho)}, c: []string{"echo"}},
		{name: "http-64", what: "HTTP fixed response, keep-alive, 64 connections", unit: "request", clients: 64, open: httpTo, uri: tcp, net: web, programs: []program{haproxy(haproxyHTTP), nginx(nginxHTTP)}, c: []string{"http"}},
		{name: "churn", what: "connect, echo 64 B, close; 16 at a time", unit: "connection", clients: 16, open: churnTo, uri: tcp, net: echo, programs: []program{socat(socatEcho)}, c: []string{"echo"}},
		{name: "forward-64", what: "forward, 64 B there and back, 64 connections", unit: "exchange", clients: 64, open: echoTo, forwards: true, uri: tcp, net: forward, programs: forwarders, c: []string{"fwd", "--copy", "--buf", "262144"}},
		{name: "forward-16k", what: "forward, 16 KiB there and back, 16 connections", unit: "exchange", clients: 16, open: echoOf(16 << 10), forwards: true, uri: tcp, net: forward, programs: forwarders, c: []string{"fwd", "--copy", "--buf", "262144"}},
		{name: "forward-bulk", what: "forward, one way, 4 connections", unit: "MiB", clients: 4, open: bulkTo, forwards: true, backer: bulkSink, uri: tcp, net: forward, programs: forwarders, c: []string{"fwd", "--splice", "--pipe", "1048576"}},
		{name: "udp", what: "UDP echo, 64 B, 16 sockets x window 8", unit: "datagram", clients: 16, open: udpTo, uri: "udp://127.0.0.1:0", net: func(c *contender) netip.AddrPort { return c.udp }, c: []string{"udp"}},
		{name: "udp-forward", what: "UDP forward, 64 B there and back, 16 sockets x window 8", unit: "datagram", clients: 16, open: udpTo, forwards: true, uri: "udp://127.0.0.1:0", net: func(c *contender) netip.AddrPort { return c.relay }, programs: []program{nginx(nginxDatagrams)}, c: []string{"udpfwd"}},
	}
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads() {
		names = append(names, w.name)
	}
	return names
}

// handler is what the daemon's listener has.
func (w workload) handler(b *backend) *sockmgrv1.Handler {
	switch {
	case w.forwards && w.uri[:3] == "udp":
		return forwardHandler("udp://" + b.datagram.String())
	case w.forwards:
		return forwardHandler("tcp://" + b.stream.String())
	case w.unit == "request":
		return webHandler()
	default:
		return echoHandler()
	}
}
