package manager

import "context"

type beforeKey struct{}

// WithBefore has f told what a listener is right before it is changed: nobody
// else changes it in between.
func WithBefore(ctx context.Context, f func(Info)) context.Context {
	return context.WithValue(ctx, beforeKey{}, f)
}

// tellBefore is called while the listener is locked.
func (m *Manager) tellBefore(ctx context.Context, e *entry) {
	if f, ok := ctx.Value(beforeKey{}).(func(Info)); ok {
		f(m.info(e))
	}
}
