package listeners

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"
)

// TLSInfo is what a handshake came to.
type TLSInfo struct {
	Version, CipherSuite, ServerName, ALPN string
	ClientSubject                          string // of its certificate; empty: it was not asked for one
}

// afterTLS is the Handler of a connection that was over TLS, from the last of
// what was sent to the close: it knows what that was.
type afterTLS struct {
	Discard
	info *TLSInfo
}

// over has serve get what the peer says over TLS; of a nil TLSServer, as it is.
func (t *TLSServer) over(serve func(net.Conn, *thread) error) func(net.Conn, *thread) error {
	if t == nil {
		return serve
	}
	return func(c net.Conn, th *thread) error {
		conn, info, failed := t.shake(c)
		th.v.mu.Lock()
		th.v.shaking = false
		th.v.mu.Unlock()
		if th.v.loop.Post(func() { th.shaken(t, info, failed) }) != nil || failed != nil {
			return net.ErrClosed // which shaken does
		}
		err := serve(conn, th)
		if op, ok := errors.AsType[*net.OpError](err); ok && strings.HasSuffix(op.Op, " error") { // an alert, of either side
			return fmt.Errorf("%w: %w", errTLS, err)
		}
		if err == nil || errors.Is(err, io.EOF) {
			_ = conn.CloseWrite() // close_notify: what the peer has is all; it may be gone
		}
		return err
	}
}

// shake does the handshake, for as long as the policy allows.
func (t *TLSServer) shake(c net.Conn) (*tls.Conn, *TLSInfo, error) {
	wait := orDefault(t.policy.Handshake, defaultHandshake)
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, nil, err
	}
	inside := &shaking{Conn: c}
	over := tls.Server(inside, t.used.Load().config)
	if err := inside.shake(over); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("it took longer than %v", wait)
		}
		return nil, nil, err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	st := over.ConnectionState()
	info := &TLSInfo{
		Version: strings.TrimPrefix(tls.VersionName(st.Version), "TLS "), CipherSuite: tls.CipherSuiteName(st.CipherSuite),
		ServerName: st.ServerName, ALPN: st.NegotiatedProtocol,
	}
	if len(st.PeerCertificates) > 0 {
		info.ClientSubject = st.PeerCertificates[0].Subject.String()
	}
	return over, info, nil
}

// computing bounds how many handshakes compute at once: thousands together
// must leave a processor to the loop.
var computing = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))

// A shaking is a connection in its handshake. Who waits for the peer lets
// another compute.
type shaking struct {
	net.Conn
	over bool
}

func (s *shaking) shake(c *tls.Conn) error {
	computing <- struct{}{}
	defer func() {
		s.over = true
		<-computing
	}()
	return c.HandshakeContext(context.Background())
}

// meanwhile lets others compute while f waits.
func (s *shaking) meanwhile(f func(p []byte) (int, error), p []byte) (int, error) {
	if s.over {
		return f(p)
	}
	<-computing
	defer func() { computing <- struct{}{} }()
	return f(p)
}

func (s *shaking) Read(p []byte) (int, error)  { return s.meanwhile(s.Conn.Read, p) }
func (s *shaking) Write(p []byte) (int, error) { return s.meanwhile(s.Conn.Write, p) }

// shaken is the end of the handshake. On the loop.
func (t *thread) shaken(s *TLSServer, info *TLSInfo, err error) {
	t.shaking, t.tls = false, info
	c := t.c
	switch {
	case err == nil || t.gone:
		return
	case errors.Is(err, io.EOF) && c.received == 0:
		c.close(io.EOF) // somebody looked whether the port is open
		return
	}
	c.l.stats.reject(RejectedTLS)
	log := c.l.set.log.Debug
	if s.logged.CompareAndSwap(false, true) {
		log = c.l.set.log.Warn
	}
	log("a TLS handshake failed; further ones are counted, and logged at debug", "listener", c.l.Name, "remote", c.source(), "error", tlsText(err))
	c.because(ClosedByTLS)
	t.finish() // in peace, so that the peer gets the alert that says why
}
