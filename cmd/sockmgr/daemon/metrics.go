package daemon

import (
	"fmt"
	"net"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/metrics"
)

// bindMetrics binds the address of the metrics, of which there is one or none.
// It is bound before anything runs, so that a daemon that cannot do all that it
// was told does nothing.
func bindMetrics(keep *keeper, address string) ([]net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	ip, err := metrics.CheckAddress(address)
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	at := listeners.Address{Network: listeners.TCP, IP: ip}
	own, err := keep.listen(metricsRole, at, func() (net.Listener, error) { return metrics.Bind(address) })
	if err != nil {
		return nil, fmt.Errorf("--metrics %s: %w", address, err)
	}
	return []net.Listener{own}, nil
}

// serveMetrics answers until the func that it returns is called.
func serveMetrics(ls []net.Listener, m *manager.Manager, log hclog.Logger) (end func() error) {
	if len(ls) == 0 {
		return func() error { return nil }
	}
	s := metrics.Serve(patient{ls[0]}, metrics.Config{Manager: m, Log: log, Version: Version, Commit: Commit})
	log.Info("metrics for Prometheus", "url", s.URL())
	return s.Close
}
