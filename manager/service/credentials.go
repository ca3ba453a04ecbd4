package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"

	"github.com/sockmgr/sockmgr/manager/access"
)

// identify finds out who is at the other end of every control connection: over
// a Unix socket the kernel says who, over TCP a certificate, and where plaintext
// is let in from this host, the kernel again.
type identify struct {
	rules     *access.Rules
	tls       func() *tls.Config // nil: there is no TLS
	loopback  bool               // plaintext from this host is let in
	refused   func(net.Conn, error)
	slowed    func(c caller, why string)
	conns     *conns
	refuseOwn bool             // connections of this very process: a forward to its own control socket
	former    []access.Process // and of those that it has taken over from
}

// errOwn keeps what the daemon forwards for anybody from being taken for what
// the daemon's own user asks for.
var errOwn = errors.New("the daemon itself has connected to its control address: nothing is forwarded there")

// ServerHandshake is credentials.TransportCredentials. gRPC bounds the time.
func (i identify) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	held, c, err := i.handshake(conn)
	if err != nil {
		i.refused(conn, err)
		return nil, nil, err
	}
	return held, c, nil
}

func (i identify) handshake(conn net.Conn) (net.Conn, caller, error) {
	end, err := i.conns.begin()
	if err != nil {
		return nil, caller{}, err
	}
	defer end()
	_, overUnix := conn.(*net.UnixConn)
	conn, who, err := i.whose(conn)
	if err != nil {
		return nil, caller{}, err
	}
	conn, process, err := i.conns.hold(conn, who)
	if err != nil {
		return nil, caller{}, err
	}
	c := newCaller(i.rules, who)
	h := newHeard(conn, newPace(process))
	if i.slowed != nil {
		h.pace.tell = func(why string) { i.slowed(c, why) }
	}
	c.used, c.answers = &usage{pace: h.pace}, h.answers
	c.overUnix = overUnix
	return h, c, nil
}

// whose finds out, and returns the connection to go on with.
func (i identify) whose(conn net.Conn) (net.Conn, access.Identity, error) {
	switch c := conn.(type) {
	case *net.UnixConn:
		who, err := peerOf(c)
		if err == nil && i.refuseOwn && (int(who.PID) == os.Getpid() || slices.ContainsFunc(i.former, func(p access.Process) bool { return p.Is(int(who.PID)) })) {
			err = errOwn
		}
		return conn, who, err
	case *net.TCPConn:
		switch {
		case i.tls != nil:
			return i.shake(c)
		case i.loopback:
			who, err := i.localUser(c)
			return conn, who, err
		}
		return nil, access.Identity{}, errors.New("a control connection over TCP needs TLS")
	}
	return nil, access.Identity{}, fmt.Errorf("control connection over %T: nothing tells who calls", conn)
}

// ClientHandshake is not for servers.
func (identify) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("sockmgr: server side only")
}

// Info is credentials.TransportCredentials.
func (identify) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "sockmgr"}
}

// Clone is credentials.TransportCredentials.
func (i identify) Clone() credentials.TransportCredentials { return i }

// OverrideServerName is credentials.TransportCredentials.
func (identify) OverrideServerName(string) error { return nil }

// peerOf asks the kernel who connected (unix(7)): the user, the group and all
// others of the process at that time.
func peerOf(conn *net.UnixConn) (who access.Identity, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return who, err
	}
	var cred *unix.Ucred
	var groups []uint32
	var errCred, errGroups error
	if err := raw.Control(func(fd uintptr) {
		cred, errCred = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		groups, errGroups = peerGroups(int(fd))
	}); err != nil {
		return who, err
	}
	if errCred != nil {
		return who, os.NewSyscallError("getsockopt SO_PEERCRED", errCred)
	}
	if errGroups != nil && !errors.Is(errGroups, unix.ENOPROTOOPT) { // before Linux 4.13 there is the one group
		return who, os.NewSyscallError("getsockopt SO_PEERGROUPS", errGroups)
	}
	return access.Identity{IsUser: true, UID: cred.Uid, GIDs: append(groups, cred.Gid), PID: cred.Pid}, nil
}

// peerGroups asks SO_PEERGROUPS, which x/sys has no call for. What does not fit
// is ERANGE, with the size that does.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
