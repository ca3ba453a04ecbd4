package listeners

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	maxCIDRs = 10_000 // of one list
	maxUIDs  = 1_000
)

// An AccessPolicy says who may connect, or send datagrams. It is checked right
// after accept, before anything is made for the connection. It is a value that
// ParseAccess makes; the zero policy lets everybody in.
type AccessPolicy struct {
	Allow []string // CIDRs let in; empty lets all in
	Deny  []string // CIDRs refused; wins over Allow
	Reset bool     // refuse with RST instead of FIN
	UIDs  []uint32 // users let in on Unix sockets; empty lets all in

	rules *accessRules // nil: all are let in
}

// accessRules is what is looked things up in. It is not changed once it is made.
type accessRules struct {
	allow, deny addrRanges
	only        bool // those in allow, that is
	uids        []uint32
	reset       bool
}

// ParseAccess makes an AccessPolicy. What it returns as an error are Violations.
func ParseAccess(allow, deny []string, reset bool, uids []uint32) (AccessPolicy, error) {
	p := AccessPolicy{Reset: reset}
	if len(allow)+len(deny)+len(uids) == 0 {
		return p, nil
	}
	r := &accessRules{only: len(allow) > 0, reset: reset}
	var errs [3]error
	p.Allow, r.allow, errs[0] = parseCIDRs("spec.access.allow", allow)
	p.Deny, r.deny, errs[1] = parseCIDRs("spec.access.deny", deny)
	if len(uids) > maxUIDs {
		errs[2] = &Violation{Field: "spec.access.allow_uids", Message: fmt.Sprintf("has %d; at most %d", len(uids), maxUIDs)}
	}
	if err := errors.Join(errs[:]...); err != nil {
		return AccessPolicy{}, err
	}
	if len(uids) > 0 {
		p.UIDs = slices.Compact(slices.Sorted(slices.Values(uids)))
		r.uids = p.UIDs
	}
	p.rules = r
	return p, nil
}

// parseCIDRs returns the networks in one form, and as ranges.
func parseCIDRs(field string, texts []string) (forms []string, ranges addrRanges, err error) {
	if len(texts) > maxCIDRs {
		return nil, nil, &Violation{Field: field, Message: fmt.Sprintf("has %d networks; at most %d", len(texts), maxCIDRs)}
	}
	const maxFaults = 20
	var faults []error
	for i, text := range texts {
		n, err := ParseCIDR(text)
		if err != nil {
			if faults = append(faults, &Violation{Field: fmt.Sprintf("%s[%d]", field, i), Message: err.Error()}); len(faults) == maxFaults {
				break
			}
			continue
		}
		forms = append(forms, n.String())
		ranges = append(ranges, addrRange{n.Addr(), lastOf(n)})
	}
	return forms, ranges.merged(), errors.Join(faults...)
}

// ParseCIDR takes a network, or one address. IPv4 in the form of IPv6 is IPv4.
func ParseCIDR(text string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(text)
	if err != nil {
		a, addrErr := netip.ParseAddr(text)
		if addrErr != nil || a.Zone() != "" {
			return n, fmt.Errorf("%.80q is not a network, such as 10.0.0.0/8 or 2001:db8::/32, nor an address", text)
		}
		n = netip.PrefixFrom(a, a.BitLen())
	}
	if a := n.Addr(); a.Is4In6() {
		if n.Bits() < 96 {
			return n, fmt.Errorf("%.80q is more than all of IPv4: write 0.0.0.0/0", text)
		}
		n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
	}
	if m := n.Masked(); m != n {
		return n, fmt.Errorf("%.80q has bits set beyond its length; did you mean %v?", text, m)
	}
	return n, nil
}

// check refuses rules that no address of a listener could go by.
func (p AccessPolicy) check(listen []Address) error {
	var ip, stream, gram bool
	for _, a := range listen {
		ip = ip || a.Network.ip()
		stream = stream || !a.Network.ip() && !a.Network.Datagram()
		gram = gram || a.Network.Base() == Unixgram
	}
	var errs []error
	for _, list := range []struct {
		field string
		n     int
	}{{"allow", len(p.Allow)}, {"deny", len(p.Deny)}} {
		if list.n > 0 && !ip {
			errs = append(errs, &Violation{Field: "spec.access." + list.field, Message: "is for tcp and udp, and the listener has none; users of Unix sockets are told by allow_uids"})
		}
	}
	switch {
	case len(p.UIDs) == 0:
	case gram:
		errs = append(errs, &Violation{Field: "spec.access.allow_uids", Message: "is not for unixgram: a datagram does not say whose it is; use unix.mode"})
	case !stream:
		errs = append(errs, &Violation{Field: "spec.access.allow_uids", Message: "is for unix and unixpacket, and the listener has none"})
	}
	return errors.Join(errs...)
}

// Admits reports whether a client at the address may come in.
func (p AccessPolicy) Admits(a netip.Addr) bool { return p.rules == nil || p.rules.admitsIP(a) }

// admitsIP reports whether a client at the address may come in.
func (r *accessRules) admitsIP(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return !r.deny.has(a) && (!r.only || r.allow.has(a))
}

// admits reports whether a connection may come in. The user of a Unix socket is
// who called connect.
func (r *accessRules) admits(fd int, from *unix.RawSockaddrAny) bool {
	if from.Addr.Family != unix.AF_UNIX {
		return r.admitsIP(peerAddr(from).Addr())
	}
	if len(r.uids) == 0 {
		return true
	}
	var who unix.Ucred
	if _, err := getsockopt(fd, unix.SOL_SOCKET, unix.SO_PEERCRED, &who); err != nil {
		return false
	}
	_, found := slices.BinarySearch(r.uids, who.Uid)
	return found
}

// savedAccess is how an AccessPolicy is saved.
type savedAccess struct {
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
	Reset bool     `json:"reset,omitempty"`
	UIDs  []uint32 `json:"allow_uids,omitempty"`
}

// IsZero reports whether nothing is said.
func (p AccessPolicy) IsZero() bool { return !p.Reset && p.rules == nil }

// MarshalJSON returns the form that UnmarshalJSON takes.
func (p AccessPolicy) MarshalJSON() ([]byte, error) {
	return json.Marshal(savedAccess{p.Allow, p.Deny, p.Reset, p.UIDs})
}

// UnmarshalJSON checks what it reads as ParseAccess does.
func (p *AccessPolicy) UnmarshalJSON(data []byte) error {
	var s savedAccess
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	var err error
	*p, err = ParseAccess(s.Allow, s.Deny, s.Reset, s.UIDs)
	return err
}

// WithAccess returns a copy of s with another policy.
func (s Spec) WithAccess(p AccessPolicy) (Spec, error) {
	s.Access = p
	if e, ok := s.Handler.(*Exec); ok && e.PassListener && p.rules != nil {
		return s, &Violation{Field: "spec.access", Message: "cannot be kept with pass_listener: the program accepts, not the daemon"}
	}
	return s, p.check(s.Listen)
}

// refuse closes a connection of which nobody shall hear, without waiting.
func (l *Listener) refuse(fd int, why Rejection, reset bool) {
	l.stats.reject(why)
	if reset || l.lingers {
		linger := unix.Linger{}
		if reset {
			linger.Onoff = 1 // for 0 seconds: RST
		}
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger)
	}
	sysClose(fd)
}
