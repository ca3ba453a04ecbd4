package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sockmgr/sockmgr/manager"
)

// Bounds of the server: it is for one or two scrapers.
const (
	maxScrapes    = 2
	maxConns      = 16
	headerTime    = 5 * time.Second
	scrapeTime    = 30 * time.Second
	idleTime      = 5 * time.Minute
	maxHeaderSize = 8 << 10
	closeTime     = time.Second
)

// Config is what Serve needs.
type Config struct {
	Manager         *manager.Manager
	Log             hclog.Logger
	Version, Commit string
}

// A Server answers GET /metrics.
type Server struct {
	listener net.Listener
	http     *http.Server
	ended    chan error // of Serve
}

// CheckAddress returns the address to listen on, or says what is wrong with
// it. Only loopback is let in: names and traffic of listeners are shown to
// whoever asks.
func CheckAddress(text string) (netip.AddrPort, error) {
	hostPort := strings.TrimPrefix(text, "tcp://")
	if port, ok := strings.CutPrefix(hostPort, "localhost:"); ok {
		hostPort = "127.0.0.1:" + port
	}
	addr, err := netip.ParseAddrPort(hostPort)
	switch {
	case err != nil:
		return addr, fmt.Errorf("%q is not an address and a port: write for example 127.0.0.1:9464", text)
	case !addr.Addr().Unmap().IsLoopback():
		return addr, fmt.Errorf("%s is not a loopback address, and whoever reaches it could read all numbers: take 127.0.0.1:%d, and let a proxy or an agent on this host pass it on", text, addr.Port())
	}
	return addr, nil
}

// Bind binds the address. It listens at once: who connects waits for Serve.
func Bind(address string) (net.Listener, error) {
	addr, err := CheckAddress(address)
	if err != nil {
		return nil, err
	}
	return net.Listen("tcp", addr.String())
}

// Serve answers on l until Close, and then closes it.
func Serve(l net.Listener, c Config) *Server {
	s := &Server{listener: l, ended: make(chan error, 1), http: &http.Server{
		Handler: handler(c), ReadHeaderTimeout: headerTime, ReadTimeout: headerTime, WriteTimeout: scrapeTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeaderSize,
		ErrorLog:       c.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}}
	go func() { s.ended <- s.http.Serve(limitConns(l)) }()
	return s
}

// URL is where the metrics are.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() + "/metrics" }

// Close lets a scrape finish, but not for long.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // which waits for nobody
	}
	if err := <-s.ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

func handler(c Config) http.Handler {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(
		&collector{m: c.Manager, version: c.Version, commit: c.Commit},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: c.Log.StandardLogger(nil), MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime - time.Second,
	}))
	return mux
}
