package listeners

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A ProxyMode is whether connections, and datagrams, begin with a header of the
// PROXY protocol, which says who is behind a proxy.
type ProxyMode uint8

// The modes.
const (
	ProxyOff      ProxyMode = iota // it is not looked for
	ProxyOptional                  // it is used when it is there
	ProxyRequired                  // connections without it are closed, datagrams dropped
)

var proxyModes = [...]string{"off", "optional", "required"}

// String returns the name in lower case.
func (m ProxyMode) String() string { return proxyModes[m] }

// MarshalJSON returns the name.
func (m ProxyMode) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

// UnmarshalJSON takes a name.
func (m *ProxyMode) UnmarshalJSON(data []byte) error {
	var name string
	if err := json.Unmarshal(data, &name); err != nil {
		return err
	}
	i := slices.Index(proxyModes[:], name)
	if i < 0 {
		return fmt.Errorf("%q is not a mode of the PROXY protocol", name)
	}
	*m = ProxyMode(i)
	return nil
}

// ProxyPolicy is the PROXY protocol on what arrives: connections of both versions,
// datagrams of version 2.
type ProxyPolicy struct {
	Mode    ProxyMode      `json:"mode"`
	Trusted []netip.Prefix `json:"trusted,omitempty"` // who it is believed from; none: everybody
	Timeout time.Duration  `json:"timeout,omitempty"` // to wait for it; 0: 3 s
}

const (
	defaultProxyWait = 3 * time.Second
	maxTrusted       = 256
)

// check returns every fault, for a listener at those addresses.
func (p ProxyPolicy) check(listen []Address) error {
	var faults []error
	bad := func(field, format string, args ...any) {
		faults = append(faults, &Violation{Field: "spec.proxy_protocol." + field, Message: fmt.Sprintf(format, args...)})
	}
	for _, a := range listen {
		if p.Mode != ProxyOff && a.Network == Unixpacket {
			bad("mode", "%v is not for %v: it is for streams and datagrams", p.Mode, a)
		}
	}
	if len(p.Trusted) > maxTrusted {
		bad("trusted", "has %d networks; at most %d", len(p.Trusted), maxTrusted)
	}
	if p.Timeout < 0 || p.Timeout > time.Hour {
		bad("timeout", "%v is out of range: from 0s, which is the default, to 1h", p.Timeout)
	}
	return errors.Join(faults...)
}

// IsZero reports whether it says nothing.
func (p ProxyPolicy) IsZero() bool {
	return p.Mode == ProxyOff && p.Timeout == 0 && len(p.Trusted) == 0
}

// believes reports whether a header from an address counts. A Unix client has
// none: who may connect there is for the permissions of the path.
func (p ProxyPolicy) believes(from netip.Addr) bool {
	if len(p.Trusted) == 0 || !from.IsValid() {
		return true
	}
	from = from.WithZone("")
	return slices.ContainsFunc(p.Trusted, func(n netip.Prefix) bool { return n.Contains(from) })
}
