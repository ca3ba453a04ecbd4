package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager/access"
)

// shake ends TLS. The configuration asks for a certificate and has verified it
// when the handshake is done.
func (i identify) shake(c *net.TCPConn) (net.Conn, access.Identity, error) {
	config := i.tls().Clone()
	config.NextProtos = []string{"h2"}
	config.ClientAuth = tls.RequireAndVerifyClientCert // whatever it says
	config.MinVersion = tls.VersionTLS13
	config.SessionTicketsDisabled = true // every connection shows its certificate, to the CA of today
	config.VerifyConnection = func(state tls.ConnectionState) error {
		c := state.PeerCertificates[0]
		if len(namesOf(c)) == 0 {
			return fmt.Errorf("the certificate of %q has no URI, DNS name or email in its SAN: nobody is known by the subject alone", c.Subject)
		}
		return nil
	}
	over := tls.Server(c, config)
	if err := over.HandshakeContext(context.Background()); err != nil {
		linger(c)
		return nil, access.Identity{}, err
	}
	state := over.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		return nil, access.Identity{}, errors.New("the client does not speak HTTP/2 (ALPN h2)")
	}
	return over, access.Identity{Names: namesOf(state.PeerCertificates[0])}, nil
}

// linger lets the alert reach a client that sends on meanwhile: a close with
// unread input is a reset, which overtakes it.
func linger(c *net.TCPConn) {
	if c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, c, lingerBytes) // it is refused already
	}
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// namesOf are the names of a certificate's SAN, with their kinds.
func namesOf(c *x509.Certificate) []string {
	var names []string
	for _, u := range c.URIs {
		names = append(names, "uri:"+u.String())
	}
	for _, name := range c.DNSNames {
		names = append(names, "dns:"+name)
	}
	for _, address := range c.EmailAddresses {
		names = append(names, "email:"+address)
	}
	return names
}

// localUser asks the kernel whose the other end is, which is on this host. Who
// has the socket open may act for others, as a proxy does: hence "insecure".
// Groups are not known.
func (i identify) localUser(c *net.TCPConn) (who access.Identity, err error) {
	local, okLocal := c.LocalAddr().(*net.TCPAddr)
	remote, okRemote := c.RemoteAddr().(*net.TCPAddr)
	if !okLocal || !okRemote || !local.IP.IsLoopback() || !remote.IP.IsLoopback() {
		return who, errors.New("a control connection without TLS is for this host only")
	}
	uid, inode, err := listeners.SocketOwner(remote.AddrPort(), local.AddrPort())
	if err != nil {
		return who, fmt.Errorf("nobody knows whose the connection from %v is: %w", remote, err)
	}
	if i.refuseOwn && int(uid) == os.Geteuid() {
		err = i.ownSocket(inode)
	}
	return access.Identity{IsUser: true, UID: uid}, err
}

// ownSocket is errOwn if this process, or one that it has taken over from, has the
// socket open, and another error if that is not to be found out.
//
// It looks twice. A descriptor that gets another number, as the upstreams of
// threads do, or another process, in an upgrade, is seen at neither place if that
// is just then. Once there it stays.
func (i identify) ownSocket(inode uint64) error {
	for range 2 {
		if err := refuseOpen("self", inode); err != nil {
			return err
		}
		for _, p := range i.former {
			err := refuseOpen(strconv.Itoa(p.PID), inode)
			if err != nil && p.Is(p.PID) && !errors.Is(err, os.ErrNotExist) { // or it has ended
				return err
			}
		}
	}
	return nil
}

// refuseOpen is errOwn if a process has the socket open, and another error if that
// is not to be found out.
func refuseOpen(process string, inode uint64) error {
	want := fmt.Sprintf("socket:[%d]", inode)
	dir := filepath.Join("/proc", process, "fd")
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		target, failed := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case failed == nil && target == want:
			return errOwn
		case failed != nil && !errors.Is(failed, os.ErrNotExist): // or it was closed just now
			err = failed
		}
	}
	if err != nil {
		return fmt.Errorf("whether it is the daemon itself that has connected is not to be found out: %w", err)
	}
	return nil
}
