//go:build !linux

package cli

import "context"

func (a *app) runWithSockets(context.Context, []string, []string) error {
	return usagef("exec needs a daemon on this host, and that is Linux")
}
