package listeners

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A returnedConn is what came back of a durable connection.
type returnedConn struct {
	name   string
	kind   byte // a: an arena; c: a connection; u: one to an upstream
	number int
	fd     int
}

// lookAtConn reports whether a descriptor is of a durable connection: a file in
// memory, or a TCP socket that does not listen, under a name that units do not
// have. What it is worth the records tell.
func lookAtConn(b Returned) (c returnedConn, ok bool) {
	if len(b.Name) < 3 || b.Name[0] != '@' || strings.IndexByte("acu", b.Name[1]) < 0 {
		return c, false
	}
	most := maxArenas
	if b.Name[1] != 'a' {
		most = maxArenas * arenaSlots
	}
	number, err := strconv.ParseUint(b.Name[2:], 36, 32)
	if err != nil || number >= uint64(most) {
		return c, false
	}
	var st unix.Stat_t
	if unix.Fstat(b.FD, &st) != nil || (st.Mode&unix.S_IFMT == unix.S_IFREG) != (b.Name[1] == 'a') {
		return c, false
	}
	return returnedConn{b.Name, b.Name[1], int(number), b.FD}, true
}

// backArenas takes out the arenas that came back.
func (k *Kept) backArenas() []returnedConn {
	return k.takeConns(func(c returnedConn) bool { return c.kind == 'a' })
}

// takeConns takes out what f is true of.
func (k *Kept) takeConns(f func(returnedConn) bool) (some []returnedConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var rest []returnedConn
	for _, c := range k.conns {
		if f(c) {
			some = append(some, c)
		} else {
			rest = append(rest, c)
		}
	}
	k.conns = rest
	return some
}

// cookieAt is the cookie of a socket, and an error for what is no connection of
// TCP.
func cookieAt(fd int) (uint64, error) {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err == nil && protocol != unix.IPPROTO_TCP {
		err = unix.EPROTOTYPE
	}
	return cookieOf(fd), os.NewSyscallError("getsockopt SO_PROTOCOL", err)
}
