package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
	"github.com/sockmgr/sockmgr/listeners"
)

// The sockets that the daemon itself answers on. No listener has such a name.
const (
	controlRole  = "+control"
	handoverRole = "+handover"
	metricsRole  = "+metrics"
)

// An ownSocket is one of them.
type ownSocket struct {
	net.Listener
	role    string
	foreign bool   // systemd's: it stays, and so does its path
	stored  string // as that the service manager has a copy; empty: it has none
}

// listen returns the socket that came back at an address: that of the daemon
// before, whose clients wait in its queue, or one of systemd's. Where there is
// none, bind makes it, and the service manager gets a copy.
func (k *keeper) listen(role string, at listeners.Address, bind func() (net.Listener, error)) (own ownSocket, err error) {
	own = k.claim(role, at)
	if own.Listener == nil {
		if own.Listener, err = bind(); err != nil {
			return own, err
		}
		k.store(&own)
	}
	k.mu.Lock()
	k.own = append(k.own, own)
	k.mu.Unlock()
	return own, nil
}

// claim takes a socket out of what came back. One that was the daemon's and
// cannot serve any more is let go, so that its address is free.
func (k *keeper) claim(role string, at listeners.Address) ownSocket {
	for i := 0; i < len(k.back); i++ {
		b := k.back[i]
		who, rest, ours := strings.Cut(b.Name, "@")
		if ours && who != role || !isAt(b.FD, at, ours) {
			continue
		}
		serves := accepts(b.FD) && (!ours || rest == identity(b.FD, at))
		if !serves && !ours {
			continue
		}
		k.back = slices.Delete(k.back, i, i+1)
		i--
		if serves {
			f := os.NewFile(uintptr(b.FD), b.Name)
			l, err := net.FileListener(f) // which is a copy
			_ = f.Close()
			if err == nil {
				own := ownSocket{Listener: l, role: role, foreign: !ours}
				if ours {
					own.stored = b.Name
				}
				return own
			}
			k.log.Warn("a socket that came back is of no use", "name", b.Name, "error", err)
			continue
		}
		k.let(b)
	}
	return ownSocket{role: role}
}

// let closes a socket of the daemon's, here and with the service manager.
func (k *keeper) let(b fdstore.Returned) {
	k.log.Warn("a socket that came back does not serve its address any more", "name", b.Name)
	_ = unix.Close(b.FD)
	if k.client == nil {
		return
	}
	k.client.Remove(b.Name)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = k.client.Wait(ctx) // bind says what is wrong
}

// store leaves a copy with the service manager.
func (k *keeper) store(own *ownSocket) {
	if k.client == nil || own.foreign {
		return
	}
	conn, ok := own.Listener.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			own.stored = own.role + "@" + identity(int(fd), addressAt(int(fd)))
			k.client.Store(own.stored, int(fd))
		})
	}
	if err != nil {
		k.failed(err)
	}
}

// storeOwn leaves copies of all with a service manager that has nothing yet.
func (k *keeper) storeOwn() {
	for i := range k.own {
		k.store(&k.own[i])
	}
}

// unlinkOwn says that the paths go when the daemon ends from here on: one that
// ends sooner leaves them to the next, which gets their sockets.
func (k *keeper) unlinkOwn() {
	k.unlinks = true
	for _, own := range k.own {
		if l, ok := own.Listener.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(!own.foreign)
		}
	}
}

// ownFiles are copies of all, with the names that they are stored as: a process
// that is started with them claims them.
func (k *keeper) ownFiles() (names []string, files []int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, own := range k.own {
		conn, ok := own.Listener.(syscall.Conn)
		if !ok {
			continue
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			return names, files, err
		}
		var failed error
		err = raw.Control(func(fd uintptr) {
			var copied int
			if copied, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); failed == nil {
				name := "foreign"
				if !own.foreign {
					name = own.role + "@" + identity(copied, addressAt(copied))
				}
				names, files = append(names, name), append(files, copied)
			}
		})
		if err != nil || failed != nil {
			return names, files, errors.Join(err, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", failed))
		}
	}
	return names, files, nil
}

// leaveOwn closes all, and leaves them to another process.
func (k *keeper) leaveOwn() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, own := range k.own {
		if l, ok := own.Listener.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(false)
			k.left = append(k.left, placeOf(own.Addr().String()))
		}
		_ = own.Close() // it is given up
	}
	k.own = nil
	k.reserve()
}

// listenAgain tells the kernel that it is this process that who connects is
// answered by (SO_PEERCRED), and not the one that made the sockets.
func (k *keeper) listenAgain() {
	for _, own := range k.own {
		conn, ok := own.Listener.(syscall.Conn)
		if !ok || own.Addr().Network() == "tcp" {
			continue
		}
		raw, err := conn.SyscallConn()
		if err == nil {
			_ = raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), unix.SOMAXCONN) })
		}
		if err != nil {
			k.log.Warn("who connects is told a wrong pid", "address", own.Addr(), "error", err)
		}
	}
}

// closeOwn closes what is open still. A socket whose path goes is of no use to
// the next daemon: systemd, which keeps all over a restart, lets go of it.
func (k *keeper) closeOwn() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, own := range k.own {
		_ = own.Close() // most are closed already
		if k.unlinks && k.client != nil && own.stored != "" && own.Addr().Network() != "tcp" {
			k.client.Remove(own.stored)
		}
	}
}

// addressAt is where a socket is bound; the zero Address where that is nowhere.
func addressAt(fd int) (a listeners.Address) {
	local, err := unix.Getsockname(fd)
	if err != nil {
		return a
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return a
	}
	switch local := local.(type) {
	case *unix.SockaddrUnix:
		switch a.Path = local.Name; kind {
		case unix.SOCK_STREAM:
			a.Network = listeners.Unix
		case unix.SOCK_SEQPACKET:
			a.Network = listeners.Unixpacket
		}
	case *unix.SockaddrInet4:
		a.IP = netip.AddrPortFrom(netip.AddrFrom4(local.Addr), uint16(local.Port))
	case *unix.SockaddrInet6:
		a.IP = netip.AddrPortFrom(netip.AddrFrom16(local.Addr), uint16(local.Port))
	}
	if a.IP.IsValid() && kind == unix.SOCK_STREAM {
		a.Network = listeners.TCP
	}
	return a
}

// isAt reports whether a socket is bound at an address; any port will do only
// if it is ours.
func isAt(fd int, want listeners.Address, ours bool) bool {
	is := addressAt(fd)
	if is.Network == "" || is.Network != want.Network.Base() {
		return false
	}
	if is.Network != listeners.TCP {
		return is.Path == want.Path
	}
	port := is.IP.Port() == want.IP.Port() || ours && want.IP.Port() == 0
	return port && is.IP.Addr() == want.IP.Addr().WithZone("")
}

// accepts reports whether it listens: one that was shut from outside does not.
func accepts(fd int) bool {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && listens != 0
}

// identity proves that a socket is that one, and that its path is its own still.
// It has the form of what listeners' sockets are stored as: what nobody claims
// is let go with those.
func identity(fd int, at listeners.Address) string {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	var st unix.Stat_t
	if err == nil && at.Path != "" {
		err = unix.Lstat(at.Path, &st)
	}
	if err != nil {
		return "none"
	}
	return fmt.Sprintf("%x.%x.%x", cookie, st.Dev, st.Ino)
}
