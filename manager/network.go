package manager

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// NetworkStats are counters of the daemon's network namespace, by the names
// that /proc has for them. They grow with what anyone in it does.
type NetworkStats struct {
	ListenOverflows   uint64 // connections dropped: an accept queue was full
	ListenDrops       uint64 // connections dropped at listening sockets, for any reason
	SyncookiesSent    uint64
	ReqQFullDrop      uint64 // requests dropped: the SYN queue was full
	UDPReceiveBuffers uint64 // datagrams lost: a receive buffer was full
	UDPSendBuffers    uint64 // datagrams not sent: a send buffer was full
	RetransSegs       uint64
}

// Network reads the counters. A counter that this kernel does not have is zero.
func (m *Manager) Network() (NetworkStats, error) {
	var s NetworkStats
	for _, file := range []struct {
		path  string
		parse func(text string) map[string]uint64
		want  map[string]*uint64
	}{
		{"/proc/self/net/netstat", parsePairs, map[string]*uint64{
			"TcpExtListenOverflows": &s.ListenOverflows, "TcpExtListenDrops": &s.ListenDrops,
			"TcpExtSyncookiesSent": &s.SyncookiesSent, "TcpExtTCPReqQFullDrop": &s.ReqQFullDrop,
		}},
		{"/proc/self/net/snmp", parsePairs, map[string]*uint64{
			"TcpRetransSegs": &s.RetransSegs, "UdpRcvbufErrors": &s.UDPReceiveBuffers, "UdpSndbufErrors": &s.UDPSendBuffers,
		}},
		{"/proc/self/net/snmp6", parseLines, map[string]*uint64{ // TCP counts both families in one
			"Udp6RcvbufErrors": &s.UDPReceiveBuffers, "Udp6SndbufErrors": &s.UDPSendBuffers,
		}},
	} {
		text, err := os.ReadFile(file.path)
		switch {
		case os.IsNotExist(err) && strings.HasSuffix(file.path, "6"):
			continue // a kernel without IPv6
		case err != nil:
			return s, fmt.Errorf("counters of the network: %w", err)
		}
		for name, n := range file.parse(string(text)) {
			if to := file.want[name]; to != nil {
				*to += n
			}
		}
	}
	return s, nil
}

// parsePairs reads two lines for each protocol: "Tcp: NAME NAME" and
// "Tcp: 1 2".
func parsePairs(text string) map[string]uint64 {
	all := map[string]uint64{}
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, numbers := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if len(names) == 0 || len(names) != len(numbers) || names[0] != numbers[0] {
			continue
		}
		for j := 1; j < len(names); j++ {
			if n, err := strconv.ParseUint(numbers[j], 10, 64); err == nil { // some are -1
				all[strings.TrimSuffix(names[0], ":")+names[j]] = n
			}
		}
	}
	return all
}

// parseLines reads a name and a number in each line.
func parseLines(text string) map[string]uint64 {
	all := map[string]uint64{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				all[f[0]] = n
			}
		}
	}
	return all
}
