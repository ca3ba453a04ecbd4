package cli

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// balances are the words of --balance. Never written to.
var balances = map[string]pb.ForwardHandler_Balance{
	"":                  pb.ForwardHandler_BALANCE_UNSPECIFIED,
	"round-robin":       pb.ForwardHandler_BALANCE_ROUND_ROBIN,
	"least-connections": pb.ForwardHandler_BALANCE_LEAST_CONNECTIONS,
	"source-hash":       pb.ForwardHandler_BALANCE_SOURCE_HASH,
	"first":             pb.ForwardHandler_BALANCE_FIRST,
}

func forwardHandler(f *startFlags) (*pb.Handler, error) {
	h := &pb.ForwardHandler{SendProxyProtocol: f.sendProxy}
	if len(f.upstreams) == 0 {
		return nil, usagef("--handler forward needs --upstream")
	}
	for _, text := range f.upstreams {
		u, names, err := parseUpstream(text)
		if err != nil {
			return nil, err
		}
		addUpstream(h, u, names)
	}
	var known bool
	if h.Balance, known = balances[strings.ReplaceAll(f.balance, "_", "-")]; !known {
		return nil, usagef("--balance %q: want round-robin, least-connections, source-hash or first", f.balance)
	}
	if f.connectTimeout < 0 || f.healthInterval < 0 {
		return nil, usagef("a time cannot be negative")
	}
	if f.connectTimeout > 0 {
		h.ConnectTimeout = durationpb.New(f.connectTimeout)
	}
	if f.changed("health-interval") {
		h.HealthCheck = &pb.HealthCheck{}
		if f.healthInterval > 0 {
			h.HealthCheck.Interval = durationpb.New(f.healthInterval)
		}
	}
	return &pb.Handler{Kind: &pb.Handler_Forward{Forward: h}}, nil
}

// addUpstream adds an upstream to the route of the names; no names is no route.
func addUpstream(h *pb.ForwardHandler, u *pb.Upstream, names []string) {
	if len(names) == 0 {
		h.Upstreams = append(h.Upstreams, u)
		return
	}
	for _, r := range h.Routes {
		if slices.Equal(r.ServerNames, names) {
			r.Upstreams = append(r.Upstreams, u)
			return
		}
	}
	h.Routes = append(h.Routes, &pb.Route{ServerNames: names, Upstreams: []*pb.Upstream{u}})
}

// parseUpstream reads tcp://10.0.0.1:8080,weight=2,drain,name=www.example.com;
// names come sorted.
func parseUpstream(text string) (u *pb.Upstream, names []string, err error) {
	words := strings.Split(text, ",")
	u = &pb.Upstream{Address: words[0]}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		switch {
		case word == "drain":
			u.Drain = true
		case name == "weight":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil || n == 0 {
				return nil, nil, usagef("--upstream %s: weight is %q; want a number from 1", text, value)
			}
			u.Weight = uint32(n)
		case name == "name":
			names = append(names, value)
		default:
			return nil, nil, usagef("--upstream %s: %q is not known; want weight=N, drain or name=SERVER", text, word)
		}
	}
	slices.Sort(names)
	return u, names, nil
}

// proxyModes are the words of --proxy-protocol. Never written to.
var proxyModes = map[string]pb.ProxyProtocolConfig_Mode{
	"off":      pb.ProxyProtocolConfig_MODE_OFF,
	"optional": pb.ProxyProtocolConfig_MODE_OPTIONAL,
	"required": pb.ProxyProtocolConfig_MODE_REQUIRED,
}

// proxyProtocol is what --proxy-protocol says, nil for nothing.
func proxyProtocol(f *startFlags) (*pb.ProxyProtocolConfig, error) {
	if !f.changed("proxy-protocol") {
		return nil, nil // was not asked for
	}
	mode, ok := proxyModes[f.proxyMode]
	if !ok {
		return nil, usagef("--proxy-protocol %q: want off, optional or required", f.proxyMode)
	}
	return &pb.ProxyProtocolConfig{Mode: mode}, nil
}
