package manager

import "context"

type beforeKey struct{}

// WithBefore has f told what a listener is right before it is changed: nobody
// else changes it in between. What f is given does not change, and is not to be changed.
func WithBefore(ctx context.Context, f func(*Info)) context.Context {
	return context.WithValue(ctx, beforeKey{}, f)
}

// tellBefore is called while the listener is locked.
func (m *Manager) tellBefore(ctx context.Context, e *entry) {
	if f := beforeOf(ctx); f != nil {
		info := m.info(e)
		f(&info)
	}
}

func beforeOf(ctx context.Context) func(*Info) {
	f, _ := ctx.Value(beforeKey{}).(func(*Info))
	return f
}
