package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/handover"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
	"github.com/sockmgr/sockmgr/manager/service"
)

// listenHandover binds a socket beside each control socket, for the same users.
// Without it the daemon can do all but give sockets away.
func listenHandover(keep *keeper, controls []string, log hclog.Logger) (all []*net.UnixListener) {
	for _, path := range handoverPaths(controls) {
		l, err := listenPath(keep, handoverRole, "unixpacket", "unix://"+path, -1)
		if err != nil {
			log.Warn("sockets cannot be given to programs, nor to another supervisor", "error", err)
			continue
		}
		own := l.(ownSocket)
		if err := openAlike(own, path); err != nil {
			log.Warn("sockets are given to fewer users than may open the control socket", "error", err)
		}
		all = append(all, own.Listener.(*net.UnixListener))
	}
	return all
}

// openAlike gives the socket at path the group and the mode of the control socket
// beside it, which may be systemd's.
func openAlike(own ownSocket, path string) error {
	if own.foreign {
		return nil
	}
	var control, st unix.Stat_t
	if err := unix.Lstat(strings.TrimSuffix(path, handover.Path("")), &control); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	group := -1
	if st.Gid != control.Gid {
		group = int(control.Gid)
	}
	return openTo(path, group, control.Mode&0o777)
}

// serveHandover answers there until the func that it returns is called.
func serveHandover(all []*net.UnixListener, m *manager.Manager, keep *keeper, rules *access.Rules, log hclog.Logger) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	beside := service.NewBeside(m, log, rules)
	s := &handover.Server{
		Enter: beside.Enter,
		Handle: func(ctx context.Context, r handover.Request) ([]string, []int, error) {
			return handOver(ctx, r, m, keep, beside)
		},
		Failed:  func(err error) { log.Warn("sockets were not given", "error", err) },
		Refusal: service.Refusal,
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

func handOver(ctx context.Context, r handover.Request, m *manager.Manager, keep *keeper, beside *service.Beside) (names []string, files []int, err error) {
	switch r.Verb {
	case handover.Take:
		err = beside.Take(ctx, r.Names, func(ctx context.Context) error {
			names, files, err = m.Give(ctx, r.Names)
			return err
		})
	case handover.Supervise:
		err = beside.Supervise(ctx, r.Socket, func(ctx context.Context) error { return keep.superviseBy(ctx, r.Socket, m) })
	default:
		err = &listeners.Fault{Reason: listeners.SpecInvalid, Message: fmt.Sprintf("%.40q is not asked here", r.Verb)}
	}
	return names, files, err
}
