package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
)

// checkControl returns a control address as it is shown.
func (c *config) checkControl(uri string) (string, error) {
	if strings.HasPrefix(uri, "tcp://") {
		a, err := listeners.ParseAddress(uri)
		switch {
		case err != nil:
			return uri, err
		case c.TLSCert != "":
		case !c.InsecureLoopback:
			return uri, errors.New("TCP needs TLS: give --control-tls-cert, --control-tls-key and --control-tls-client-ca, or --insecure-loopback for 127.0.0.1 and [::1]")
		case !a.IP.Addr().IsLoopback():
			return uri, errors.New("without TLS it must be 127.0.0.1 or [::1]: --insecure-loopback is for this host only")
		}
		return a.String(), nil
	}
	path, ok := strings.CutPrefix(uri, "unix://")
	if !ok {
		path = uri
	}
	if !strings.HasPrefix(path, "/") {
		return uri, errors.New("must be unix:///PATH or tcp://HOST:PORT")
	}
	return "unix://" + filepath.Clean(path), nil
}

// checkTLS looks at what the flags say of each other, not at files.
func (c *config) checkTLS() error {
	switch {
	case c.TLSCert == "" && c.TLSKey+c.TLSClientCA != "":
		return errors.New("--control-tls-cert: is needed with --control-tls-key and --control-tls-client-ca")
	case c.TLSCert == "":
		return nil
	case c.TLSClientCA == "":
		return errors.New("--control-tls-client-ca: is needed with --control-tls-cert: clients are known by their certificates")
	case c.InsecureLoopback:
		return errors.New("--insecure-loopback: is for addresses without TLS: leave it out, or the --control-tls flags")
	}
	return nil
}

// openControlTLS reads the certificates; nil where there are none.
func openControlTLS(c config) (*listeners.TLSServer, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	files := []string{c.TLSCert, c.TLSKey, c.TLSClientCA}
	for i, name := range files {
		if name == "" {
			continue
		}
		var err error
		if files[i], err = filepath.Abs(name); err != nil {
			return nil, err
		}
	}
	t, err := listeners.OpenTLS(&listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{{Certificate: files[0], Key: files[1]}}, ClientCA: files[2], MinVersion: "1.3",
	})
	if err != nil {
		return nil, fmt.Errorf("--control-tls: %w", err)
	}
	return t, nil
}

// configOf is for the next handshake; nil without TLS.
func configOf(t *listeners.TLSServer) func() *tls.Config {
	if t == nil {
		return nil
	}
	return t.Config
}

// tlsInterval is how often the files are looked at.
const tlsInterval = 2 * time.Second

// watchTLS reads certificates again that have changed, until ctx ends.
func watchTLS(ctx context.Context, t *listeners.TLSServer, log hclog.Logger) {
	next := time.NewTicker(tlsInterval)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		changed, err := t.Refresh()
		switch {
		case err != nil:
			log.Error("control certificates cannot be used; those from before stay in use", "error", err)
		case changed:
			log.Info("control certificates reloaded")
		}
	}
}

// listenTCP binds a control address of TCP.
func listenTCP(keep *keeper, uri string) (net.Listener, error) {
	a, err := listeners.ParseAddress(uri)
	if err != nil {
		return nil, fmt.Errorf("--control: %w", err)
	}
	own, err := keep.listen(controlRole, a, func() (net.Listener, error) { return net.Listen(string(a.Network), a.IP.String()) })
	if err != nil {
		return nil, fmt.Errorf("--control %s: %w", uri, err)
	}
	return own, nil
}
