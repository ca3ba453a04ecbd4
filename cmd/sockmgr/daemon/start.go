package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/service"
)

// ownListeners are the sockets that the daemon itself answers on.
type ownListeners struct {
	controls []net.Listener
	metrics  []net.Listener
	beside   []*net.UnixListener // each control socket
}

func bindOwn(c config, keep *keeper, log hclog.Logger) (own ownListeners, err error) {
	if own.controls, err = listenAll(c, keep); err != nil {
		return own, err
	}
	if own.metrics, err = bindMetrics(keep, c.Metrics); err != nil {
		return own, err
	}
	own.beside = listenHandover(keep, c.Control, log)
	return own, nil
}

func managerConfig(c config, keep *keeper, loggers *service.Loggers, limit int) manager.Config {
	dir := c.State
	if dir == "memory" {
		dir = ""
	}
	return manager.Config{
		Poller: c.Poller, Loops: c.Loops, Kept: keep.rest(), StateDir: dir, Descriptors: limit - reserve, Programs: listeners.Programs(c.ExecAllow), Metadata: c.AllowMetadata, WriteBuffer: c.writeBuffer, Reserved: keep.isManager,
		Log: loggers.Logger("manager"), LoopLog: loggers.Logger("loop"),
	}
}

// newManager begins with what is saved, or goes on where a daemon before has
// stopped. It collects less garbage meanwhile: who waits for the listeners does
// not wait for that too.
func newManager(c manager.Config, from *predecessor, keep *keeper) (*manager.Manager, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	if from == nil {
		keep.listenAgain() // what came back was made by a daemon that is gone
		return manager.New(c)
	}
	m, err := from.succeed(c)
	if err != nil {
		return nil, err
	}
	m.Begin()
	m.Tell(context.Background(), manager.Event{
		Resource: "daemon", Type: "daemon.upgrade.done", Severity: manager.Notice, Message: fmt.Sprintf("the daemon is version %s, pid %d", Version, os.Getpid()),
		Attributes: map[string]string{"version": Version, "pid": strconv.Itoa(os.Getpid())},
	})
	keep.listenAgain()
	go from.listen(keep, m)
	return m, nil
}

func newServer(c config, loggers *service.Loggers, certificates *listeners.TLSServer, up *upgrader, ends chan<- time.Duration) *grpc.Server {
	return service.NewServer(service.Config{
		Manager: up.m, Log: loggers.Logger("api"), Loggers: loggers, Info: daemonInfo(c),
		Access: c.rules, TLS: configOf(certificates), InsecureLoopback: c.InsecureLoopback, RefuseOwn: true, Former: up.former,
		Shutdown: func(drain time.Duration) {
			select {
			case ends <- drain:
			default: // it ends already
			}
		},
		Upgrade: up.Upgrade,
	})
}

func serveControls(serving *sync.WaitGroup, server *grpc.Server, controls []net.Listener, log hclog.Logger) {
	for _, l := range controls {
		serving.Go(func() {
			if err := server.Serve(patient{l}); err != nil && !errors.Is(err, net.ErrClosed) { // left to another process
				log.Error("control address lost", "address", l.Addr(), "error", err)
			}
		})
	}
}

// printReady tells who started the daemon, once.
func printReady(w io.Writer, controls []string, from *predecessor, log hclog.Logger) {
	if from != nil {
		return
	}
	if _, err := fmt.Fprintf(w, "sockmgr: ready on %s\n", strings.Join(controls, " ")); err != nil {
		log.Warn("nobody reads the ready line", "error", err)
	}
}
