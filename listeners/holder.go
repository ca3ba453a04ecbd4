package listeners

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// holder is the process that has an address.
type holder struct {
	pid     int
	command string
	inode   uint64
}

// holderOf looks through /proc. It finds nothing where the daemon may not look
// into other users' processes.
func holderOf(a Address) (holder, bool) {
	for _, inode := range boundInodes(a) {
		if h, ok := processWith(inode); ok {
			return h, true
		}
	}
	return holder{}, false
}

// boundInodes returns the sockets that are in the way of binding a.
func boundInodes(a Address) []uint64 {
	var inodes []uint64
	if !a.Network.ip() {
		words := func(s []string) string { return strings.Join(s, " ") }
		path := words(strings.Fields(a.Path))
		// Num RefCount Protocol Flags Type St Inode Path. Accepted connections
		// have the path too: they are connected, as datagram sockets may be.
		eachLine("/proc/net/unix", func(f []string) {
			if len(f) >= 8 && words(f[7:]) == path && (f[5] == "01" || f[4] == "0002") {
				inodes = appendInode(inodes, f[6])
			}
		})
		return inodes
	}
	for _, version := range []string{"", "6"} {
		eachLine("/proc/net/"+string(a.Network.Base())+version, func(f []string) {
			if len(f) < 10 {
				return
			}
			local, ok := parseProcAddr(f[1])
			listening := a.Network.Base() == UDP || f[3] == "0A"
			if ok && listening && local.Port() == a.IP.Port() && inTheWay(local.Addr(), a) {
				inodes = appendInode(inodes, f[9])
			}
		})
	}
	return inodes
}

// inTheWay reports whether a socket bound to local keeps one from being bound
// to a, the ports being the same.
func inTheWay(local netip.Addr, a Address) bool {
	ip := a.IP.Addr().WithZone("")
	switch {
	case local == ip:
		return true
	case local.Is4() == ip.Is4():
		return local.IsUnspecified() || ip.IsUnspecified()
	case local.Is4():
		return a.dual()
	default:
		return local.IsUnspecified() // it may serve IPv4 too
	}
}

func appendInode(inodes []uint64, text string) []uint64 {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n != 0 {
		return append(inodes, n)
	}
	return inodes
}

// parseProcAddr reads 0100007F:1F90: each 32-bit word in the machine's own
// byte order, which is little-endian wherever this runs.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	host, portText, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil || len(host)%8 != 0 {
		return netip.AddrPort{}, false
	}
	var raw []byte
	for ; len(host) > 0; host = host[8:] {
		word, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		raw = append(raw, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), ok
}

func eachLine(path string, f func(fields []string)) {
	text, err := os.ReadFile(path)
	if err != nil {
		return // no such protocol here
	}
	for line := range strings.Lines(string(text)) {
		f(strings.Fields(line))
	}
}

// processWith finds who has a descriptor of the socket.
func processWith(inode uint64) (holder, bool) {
	want := fmt.Sprintf("socket:[%d]", inode)
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well-formed
	at := slices.IndexFunc(fds, func(fd string) bool {
		target, err := os.Readlink(fd)
		return err == nil && target == want
	})
	if at < 0 {
		return holder{}, false
	}
	pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(fds[at]))))
	return holder{pid, CommandOf(pid), inode}, err == nil
}

// CommandOf is the name of a process; empty when it is gone.
func CommandOf(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.Map(printable, strings.TrimSpace(string(comm)))
}

// printable keeps the name that a process gave itself from breaking a line.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}
