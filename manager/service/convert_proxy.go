package service

import (
	"errors"
	"fmt"
	"time"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

var proxyModeToPB = map[listeners.ProxyMode]pb.ProxyProtocolConfig_Mode{
	listeners.ProxyOff: pb.ProxyProtocolConfig_MODE_OFF, listeners.ProxyOptional: pb.ProxyProtocolConfig_MODE_OPTIONAL,
	listeners.ProxyRequired: pb.ProxyProtocolConfig_MODE_REQUIRED,
}

var proxyModeFromPB = map[pb.ProxyProtocolConfig_Mode]listeners.ProxyMode{
	pb.ProxyProtocolConfig_MODE_UNSPECIFIED: listeners.ProxyOff, pb.ProxyProtocolConfig_MODE_OFF: listeners.ProxyOff,
	pb.ProxyProtocolConfig_MODE_OPTIONAL: listeners.ProxyOptional, pb.ProxyProtocolConfig_MODE_REQUIRED: listeners.ProxyRequired,
}

// proxyToPB returns nil for a policy that says nothing.
func proxyToPB(p listeners.ProxyPolicy) *pb.ProxyProtocolConfig {
	if p.IsZero() {
		return nil
	}
	out := &pb.ProxyProtocolConfig{Mode: proxyModeToPB[p.Mode], Timeout: spanToPB(p.Timeout)}
	for _, n := range p.Trusted {
		out.Trusted = append(out.Trusted, n.String())
	}
	return out
}

func proxyFromPB(p *pb.ProxyProtocolConfig) (out listeners.ProxyPolicy, err error) {
	var faults []error
	mode, known := proxyModeFromPB[p.GetMode()]
	if !known {
		faults = append(faults, &listeners.Violation{Field: "spec.proxy_protocol.mode", Message: "is not known"})
	}
	out.Mode = mode
	wait, err := durationFromPB("spec.proxy_protocol.timeout", p.GetTimeout(), time.Hour)
	if wait != nil {
		out.Timeout = *wait
	}
	faults = append(faults, err)
	for i, text := range p.GetTrusted() {
		n, err := listeners.ParseCIDR(text)
		if err != nil {
			faults = append(faults, &listeners.Violation{Field: fmt.Sprintf("spec.proxy_protocol.trusted[%d]", i), Message: err.Error()})
		}
		out.Trusted = append(out.Trusted, n)
	}
	return out, errors.Join(faults...)
}
