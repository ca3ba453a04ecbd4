package listeners

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Route is where connections go whose TLS ClientHello asks for one of some
// servers. TLS is not ended: the upstream has the certificate.
type Route struct {
	Names     []string   `json:"server_names"` // or *.example.com: one label, any
	Upstreams []Upstream `json:"upstreams"`
}

const (
	defaultHello  = 5 * time.Second
	maxRoutes     = 256
	maxRouteNames = 1024 // of all routes
)

// checkRoutes tells bad of every fault of the routes.
func (f *Forward) checkRoutes(bad func(field, format string, args ...any)) {
	if len(f.Routes) > maxRoutes {
		bad("routes", "has %d; at most %d", len(f.Routes), maxRoutes)
	}
	if f.HelloTimeout != 0 && len(f.Routes) == 0 {
		bad("hello_timeout", "is for routes, and there is none")
	}
	count, seen := 0, map[string]bool{}
	for i, r := range f.Routes {
		field := fmt.Sprintf("routes[%d].", i)
		if len(r.Names) == 0 {
			bad(field+"server_names", "needs a name, such as www.example.com or *.example.com")
		}
		for k, name := range r.Names {
			at := fmt.Sprintf("%sserver_names[%d]", field, k)
			if !isHostname(strings.TrimPrefix(name, "*.")) || strings.HasSuffix(name, ".") {
				bad(at, "%q is no server name: write www.example.com, or *.example.com for any one label", name)
			}
			if low := strings.ToLower(name); seen[low] {
				bad(at, "%s is there twice", name)
			} else {
				seen[low] = true
			}
		}
		count += len(r.Names)
		if len(r.Upstreams) == 0 {
			bad(field+"upstreams", "needs an address, such as tcp://10.0.0.1:8443")
		}
		checkUpstreams(field, r.Upstreams, bad)
		if d := slices.IndexFunc(r.Upstreams, func(u Upstream) bool { return u.network().Datagram() }); d >= 0 {
			bad(fmt.Sprintf("%supstreams[%d].address", field, d), "%s takes datagrams: routes are for connections", r.Upstreams[d].Address)
		}
	}
	if count > maxRouteNames {
		bad("routes", "have %d server names; at most %d", count, maxRouteNames)
	}
}

// all is every upstream, also those of routes.
func (f *Forward) all() []Upstream {
	all := slices.Clone(f.Upstreams)
	for _, r := range f.Routes {
		all = append(all, r.Upstreams...)
	}
	return all
}

// newPools makes a pool of the default upstreams, and one for each route.
func newPools(spec *Forward) (pools []*pool, names map[string]*pool) {
	pools = append(pools, newPool(spec, spec.Upstreams))
	names = make(map[string]*pool, len(spec.Routes))
	for _, r := range spec.Routes {
		p := newPool(spec, r.Upstreams)
		p.names = r.Names
		for _, name := range r.Names {
			names[strings.ToLower(name)] = p
		}
		pools = append(pools, p)
	}
	return pools, names
}

// poolFor is where a connection goes that asks for a server: the name itself
// counts more than a wildcard, and the default is for the rest.
func (f *forwarder) poolFor(server string) *pool {
	if p := f.names[server]; p != nil {
		return p
	}
	if _, domain, ok := strings.Cut(server, "."); ok {
		if p := f.names["*."+domain]; p != nil {
			return p
		}
	}
	return f.pools[0]
}

// inherit keeps what is known of upstreams that stay: in a route of the same
// names, or else in another.
func (f *forwarder) inherit(old *forwarder) {
	kept := map[*upstream]bool{}
	for _, sameNames := range []bool{true, false} {
		for _, p := range f.pools {
			for _, was := range old.pools {
				if !sameNames || slices.Equal(p.names, was.names) {
					p.inherit(was, kept)
				}
			}
		}
	}
}

// upstreams are those of all pools.
func (f *forwarder) upstreams() (all []*upstream) {
	for _, p := range f.pools {
		all = append(all, p.upstreams...)
	}
	return all
}
