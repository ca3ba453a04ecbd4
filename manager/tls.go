package manager

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

const (
	// tlsInterval is how often files of certificates are looked at. Polling sees
	// every way to replace them: written over, renamed, another link.
	tlsInterval = 2 * time.Second
	tlsTurn     = 256 // listeners asked in one turn of the loop
	// An operator is told of a certificate that expires so soon, so often.
	tlsExpiring = 14 * 24 * time.Hour
	tlsAgain    = 24 * time.Hour
)

// A warnedOf is a certificate that an operator was told of.
type warnedOf struct{ listener, sha256 string }

// watchCertificates reads certificates again that have changed, until Shutdown.
func (m *Manager) watchCertificates() {
	next := time.NewTicker(tlsInterval)
	defer next.Stop()
	warned := map[warnedOf]time.Time{} // when; of those that it is not yet time to tell of again
	for {
		select {
		case <-m.ending:
			return
		case <-next.C:
		}
		maps.DeleteFunc(warned, func(_ warnedOf, at time.Time) bool { return time.Since(at) >= tlsAgain })
		for name, t := range m.tlsServers() {
			m.refresh(name, t)
			m.warnOfExpiry(name, t, warned)
		}
	}
}

// tlsServers are those of the listeners that run, by name.
func (m *Manager) tlsServers() map[string]*listeners.TLSServer {
	var some []*listeners.Listener
	m.mu.Lock()
	for e := range m.tended {
		if e.record.Spec.TLS != nil && e.live != nil {
			some = append(some, e.live)
		}
	}
	m.mu.Unlock()
	all := make(map[string]*listeners.TLSServer, len(some))
	for len(some) > 0 {
		n := min(tlsTurn, len(some))
		err := m.on(context.Background(), func() error {
			for _, l := range some[:n] {
				if t := l.TLS(); t != nil {
					all[l.Name] = t
				}
			}
			return nil
		})
		if err != nil {
			return nil // the loop has ended
		}
		some = some[n:]
	}
	return all
}

// refresh reads certificates of one listener again, if they have changed.
func (m *Manager) refresh(name string, t *listeners.TLSServer) {
	changed, err := t.Refresh()
	e := Event{Resource: "listeners/" + name, Attributes: map[string]string{}}
	switch {
	case err != nil:
		e.Type, e.Severity = "tls.reload_failed", Failure
		e.Message = fmt.Sprintf("%s: certificates have changed and cannot be used, those from before stay in use: %v", name, err)
		e.Attributes["error"] = err.Error()
		m.log.Error("certificates cannot be used; those from before stay in use", "listener", name, "error", err)
	case changed:
		var until []string
		for _, c := range t.Status().Certificates {
			until = append(until, c.File+" until "+c.NotAfter.UTC().Format(time.RFC3339))
		}
		e.Type, e.Severity = "tls.reloaded", Notice
		e.Message = fmt.Sprintf("%s: new connections have the certificates that are there now: %s", name, strings.Join(until, ", "))
		m.log.Info("certificates reloaded", "listener", name, "certificates", until)
	default:
		return
	}
	m.tell(context.Background(), e)
}

// warnOfExpiry tells of certificates that are about to expire, or have.
func (m *Manager) warnOfExpiry(name string, t *listeners.TLSServer, warned map[warnedOf]time.Time) {
	now := time.Now()
	for _, c := range t.Status().Certificates {
		key := warnedOf{name, c.SHA256}
		left := c.NotAfter.Sub(now)
		if _, told := warned[key]; told || left >= tlsExpiring {
			continue
		}
		warned[key] = now
		e := Event{
			Resource: "listeners/" + name, Type: "tls.expiring", Severity: Warning,
			Message:    fmt.Sprintf("%s: the certificate in %s expires in %v", name, c.File, left.Round(time.Hour)),
			Attributes: map[string]string{"certificate": c.File, "not_after": c.NotAfter.UTC().Format(time.RFC3339)},
		}
		if left <= 0 {
			e.Type, e.Severity = "tls.expired", Failure
			e.Message = fmt.Sprintf("%s: the certificate in %s has expired; clients refuse it", name, c.File)
		}
		m.log.Warn(e.Message)
		m.tell(context.Background(), e)
	}
}
