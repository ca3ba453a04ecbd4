package listeners

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Open binds every address of spec and listens on it. It touches no loop and
// may be called from any goroutine. When one address fails, none stays bound.
// The caller owns the Listener: it attaches or closes it.
// Sockets at the addresses of shares are bound beside those that have them.
func Open(name string, spec Spec, shares ...Share) (*Listener, error) {
	return (*Kept)(nil).Open(name, spec, shares...)
}

// Open is the function Open, but that a socket which came back is used where
// there is one, and that what is bound is kept.
func (k *Kept) Open(name string, spec Spec, shares ...Share) (*Listener, error) {
	l, err := k.bindAll(name, spec)
	for _, share := range shares {
		if err != nil {
			break
		}
		var s *socket
		if s, err = bindShare(share, spec); err != nil {
			l.closeSockets()
			err = named(name, err)
			break
		}
		l.endpoints = append(l.endpoints, l.endpoint(s))
	}
	if err != nil {
		return nil, err
	}
	for _, e := range l.endpoints {
		if err := l.listen(e.sock()); err != nil {
			l.closeSockets()
			return nil, err
		}
	}
	for _, e := range slices.Concat(l.endpoints, l.twins) {
		k.store(name, e.sock())
	}
	l.findPairs()
	return l, nil
}

// Check finds out whether Open would work, without a moment in which a client
// could connect: it binds, does not listen, and closes. Paths are not bound,
// since that would leave a trace.
func Check(name string, spec Spec) error { return (*Kept)(nil).Check(name, spec) }

// Check is the function Check. An address of which a socket came back is bound
// already.
func (k *Kept) Check(name string, spec Spec) error {
	var ip []Address
	for _, a := range spec.Listen {
		if (a.Network.ip() || a.abstract()) && !k.has(name, a) {
			ip = append(ip, a)
		}
	}
	spec.Listen = ip
	l, err := (*Kept)(nil).bindAll(name, spec)
	if err != nil {
		return err
	}
	l.closeSockets()
	return nil
}

func (k *Kept) bindAll(name string, spec Spec) (*Listener, error) {
	l := &Listener{Name: name, spec: spec, tunables: spec.tunables(), handler: spec.handler()}
	if spec.TLS != nil {
		var err error
		if l.tls, err = openTLS(spec.TLS); err != nil {
			return nil, err
		}
	}
	claimed := k.claim(name, spec.Listen)
	var errs []error // all that was claimed goes back then
	for i, a := range spec.Listen {
		var s *socket
		var err error
		switch {
		case claimed[i] != nil:
			s, err = k.reclaim(claimed[i], a, spec)
		case len(errs) == 0:
			s, err = bind(a, spec)
		}
		if s != nil {
			l.endpoints = append(l.endpoints, l.endpoint(s))
		}
		if err != nil {
			errs = append(errs, named(name, err))
		}
	}
	if len(errs) > 0 {
		l.closeSockets()
		return nil, errs[0]
	}
	return l, k.claimTwins(l)
}

func (l *Listener) endpoint(s *socket) endpoint {
	if s.addr.Network.Datagram() {
		return &packetSocket{socket: s, l: l}
	}
	return &streamSocket{socket: s, l: l}
}

// listen is what setting the backlog for the first time does.
func (l *Listener) listen(s *socket) error {
	if s.addr.Network.Datagram() {
		return nil
	}
	o := LookupOption(backlog)
	switch err := o.Set(s, l.spec.option(o)); {
	case errors.Is(err, unix.EADDRINUSE): // SO_REUSEADDR lets bind pass
		return named(l.Name, inUse(s.addr))
	case err != nil:
		return fmt.Errorf("%s: %v: %w", l.Name, s.addr, err)
	}
	for _, o := range lateRows {
		if v := l.spec.option(o); v.typ != Null && o.isFor(s) {
			if err := o.Set(s, v); err != nil {
				return named(l.Name, optionFault(o, v, err))
			}
		}
	}
	return nil
}
