package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/internal/handover"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// listenHandover binds a socket beside each control socket. Without it the daemon
// can do all but give sockets away.
func listenHandover(keep *keeper, controls []string, log hclog.Logger) (all []*net.UnixListener) {
	for _, path := range handoverPaths(controls) {
		l, err := listenPath(keep, handoverRole, "unixpacket", "unix://"+path, -1)
		if err != nil {
			log.Warn("sockets cannot be given to programs, nor to another supervisor", "error", err)
			continue
		}
		all = append(all, l.(ownSocket).Listener.(*net.UnixListener))
	}
	return all
}

// serveHandover answers there until the func that it returns is called.
func serveHandover(all []*net.UnixListener, m *manager.Manager, keep *keeper, log hclog.Logger) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &handover.Server{
		Allow: func(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() },
		Handle: func(ctx context.Context, r handover.Request) ([]string, []int, error) {
			return handOver(ctx, r, m, keep)
		},
		Failed: func(uid uint32, err error) { log.Warn("sockets were not given", "uid", uid, "error", err) },
		Reason: reasonOf,
	}
	var serving sync.WaitGroup
	for _, l := range all {
		serving.Go(func() { s.Serve(ctx, l) })
	}
	return func() {
		cancel()
		for _, l := range all {
			_ = l.Close() // nobody is waited for
		}
		serving.Wait()
	}
}

func handoverPaths(controls []string) (paths []string) {
	for _, uri := range controls {
		if path, ok := strings.CutPrefix(uri, "unix://"); ok {
			paths = append(paths, handover.Path(path))
		}
	}
	return paths
}

func handOver(ctx context.Context, r handover.Request, m *manager.Manager, keep *keeper) ([]string, []int, error) {
	switch r.Verb {
	case handover.Take:
		return m.Give(ctx, r.Names)
	case handover.Supervise:
		return nil, nil, keep.superviseBy(ctx, r.Socket, m)
	default:
		return nil, nil, &listeners.Fault{Reason: listeners.SpecInvalid, Message: fmt.Sprintf("%.40q is not asked here", r.Verb)}
	}
}

func reasonOf(err error) string {
	if invalid, ok := errors.AsType[*manager.Invalid](err); ok {
		return string(invalid.Reason())
	}
	if fault, ok := errors.AsType[*listeners.Fault](err); ok {
		return string(fault.Reason)
	}
	return string(listeners.Internal)
}
