package listeners

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A TLSServer terminates TLS for the connections of a listener. All its methods
// may be called from any goroutine; Refresh waits for the disk.
type TLSServer struct {
	policy *TLSPolicy
	used   atomic.Pointer[tlsFiles]
	logged atomic.Bool // a handshake that failed

	mu    sync.Mutex // guards the rest
	marks string     // of the files when they were last read
	fault error      // why those are not in use
	told  bool       // and Refresh has said so
}

// openTLS reads the files of p.
func openTLS(p *TLSPolicy) (*TLSServer, error) {
	t := &TLSServer{policy: p, marks: p.marks()} // before they are read: a change while they are is seen
	files, err := p.load(time.Now())
	if err != nil {
		return nil, err
	}
	t.used.Store(files)
	return t, nil
}

// OpenTLS reads the files of p, for a server that is not a listener of this
// package.
func OpenTLS(p *TLSPolicy) (*TLSServer, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	return openTLS(p)
}

// Config is for the next handshake. It is not to be changed.
func (t *TLSServer) Config() *tls.Config { return t.used.Load().config }

// marks is a text that is another one once a file is.
func (p *TLSPolicy) marks() string {
	var b strings.Builder
	for _, name := range p.files() {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil { // follows links, so that another target is seen
			fmt.Fprintln(&b, name, err)
			continue
		}
		fmt.Fprintln(&b, name, st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	}
	return b.String()
}

// files are the paths.
func (p *TLSPolicy) files() (names []string) {
	for _, pair := range p.Certificates {
		names = append(names, pair.Certificate, pair.keyFile())
	}
	if p.ClientCA != "" {
		names = append(names, p.ClientCA)
	}
	return slices.Compact(names)
}

// Refresh looks whether the files have changed, and if they can be used, new
// handshakes have them from now on: then changed is true. If they cannot, what
// is in use stays, and the error is why. That is said once, and only of files
// that were the same the last time: who replaces a certificate and then its key
// is not interrupted.
func (t *TLSServer) Refresh() (changed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	marks := t.policy.marks()
	same := marks == t.marks
	if same && t.fault == nil {
		return false, nil
	}
	t.marks = marks
	files, err := t.policy.load(time.Now()) // also when it failed before: time makes some valid
	if err != nil {
		t.told = t.told && same && t.fault != nil && t.fault.Error() == err.Error()
		t.fault = err
		if !same || t.told {
			return false, nil
		}
		t.told = true
		return false, err
	}
	healed := t.told
	t.fault, t.told = nil, false
	if files.sum == t.used.Load().sum {
		return healed, nil // as they were
	}
	t.used.Store(files)
	t.logged.Store(false)
	return true, nil
}

// TLS returns what terminates it; nil if nothing does. It is for the loop.
func (l *Listener) TLS() *TLSServer { return l.tls }

// settleTLS goes by what spec wants. Without certificates for that, what was
// wanted before stays: nothing is served in the clear that was not to be.
func (l *Listener) settleTLS(spec Spec) {
	next := l.newTLS
	l.newTLS = nil
	switch {
	case spec.TLS == nil:
		l.tls = nil
	case l.tls != nil && spec.SameTLS(l.spec):
	case next != nil:
		l.tls = next
	}
}

// TLSStatus is what TLS uses now.
type TLSStatus struct {
	Certificates []TLSCertificate
	Read         time.Time
	Fault        error // why what the files say now is not in use
}

// A TLSCertificate is one that is in use.
type TLSCertificate struct {
	File     string
	Names    []string
	NotAfter time.Time
	SHA256   string
}

// Status says what is in use.
func (t *TLSServer) Status() TLSStatus {
	used := t.used.Load()
	st := TLSStatus{Read: used.read}
	for _, p := range used.pairs {
		c := TLSCertificate{File: p.file, Names: slices.Clone(p.Leaf.DNSNames), NotAfter: p.Leaf.NotAfter}
		for _, ip := range p.Leaf.IPAddresses {
			c.Names = append(c.Names, ip.String())
		}
		sum := sha256.Sum256(p.Leaf.Raw)
		c.SHA256 = hex.EncodeToString(sum[:])
		st.Certificates = append(st.Certificates, c)
	}
	t.mu.Lock()
	st.Fault = t.fault
	t.mu.Unlock()
	return st
}
