package manager

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/sockets"
)

// Sockets are those of clients.
func (m *Manager) Sockets() *sockets.Table { return m.sockets }

// Accept takes a connection of a listener with the remote handler, for a client.
func (m *Manager) Accept(ctx context.Context, who sockets.Caller, name string) (sockets.Status, error) {
	e, err := m.entry(name)
	if err != nil {
		return sockets.Status{}, err
	}
	l := m.liveOf(e)
	if l == nil {
		return sockets.Status{}, &listeners.Fault{
			Reason: listeners.StateInvalid, Message: name + " does not run: nothing can be accepted from it", Err: unix.EINVAL,
			Fix: "sockctl start " + name, Meta: map[string]string{"listener": name},
		}
	}
	return m.sockets.AcceptFrom(ctx, who, l)
}
