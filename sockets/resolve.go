package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

const (
	resolveTimeout = 5 * time.Second
	maxAddresses   = 16 // of one name
)

// resolve returns what a URI stands for, at least one address. Names are looked
// up here, off the loop.
func (t *Table) resolve(ctx context.Context, who Caller, id, uri string) ([]listeners.Address, error) {
	a, err := listeners.ParseAddress(uri)
	if err == nil {
		return []listeners.Address{a}, nil
	}
	n, host, port, ok := named(uri)
	if !ok {
		return nil, invalid("address", err.Error(), unix.EINVAL)
	}
	version := "ip"
	err = t.with(ctx, who, id, func(s *Socket) error {
		if s.Family == unix.AF_INET {
			version = "ip4"
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if last := n[len(n)-1]; last == '4' || last == '6' {
		version = "ip" + string(last)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, version, host)
	if err != nil || len(ips) == 0 {
		return nil, &listeners.Fault{
			Reason: listeners.AddressNotAvailable, Message: fmt.Sprintf("%s: the name cannot be resolved", uri), Err: errors.Join(err, unix.EADDRNOTAVAIL),
			Fix: "write an IP address", Meta: map[string]string{"address": uri},
		}
	}
	all := make([]listeners.Address, 0, len(ips))
	for _, ip := range ips[:min(len(ips), maxAddresses)] {
		all = append(all, listeners.Address{Network: n, IP: netip.AddrPortFrom(ip.Unmap(), port)})
	}
	return all, nil
}

// named takes the URI of a host with a name apart.
func named(uri string) (n listeners.Network, host string, port uint16, ok bool) {
	scheme, rest, _ := strings.Cut(uri, "://")
	n = listeners.Network(scheme)
	host, text, err := net.SplitHostPort(rest)
	number, errPort := strconv.ParseUint(text, 10, 16)
	return n, host, uint16(number), n.Class()&listeners.OnIP != 0 && err == nil && errPort == nil && host != "" && !strings.ContainsAny(host, ":/%[] ")
}

// sockaddr is a for this socket. What the kernel could not tell from a sockaddr
// is the protocol: it is refused with what it says where it can.
func (s *Socket) sockaddr(a listeners.Address) (unix.Sockaddr, error) {
	isIP := func(n listeners.Network) bool { return n.Class()&listeners.OnIP != 0 }
	if a.Network.Base() != s.Network && isIP(a.Network) == isIP(s.Network) {
		return nil, unix.EPROTOTYPE
	}
	return a.Sockaddr(s.Family)
}
