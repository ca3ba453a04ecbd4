package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/internal/fdstore"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/service"
)

// Version and Commit are set by the linker.
var (
	Version = "devel"
	Commit  = ""
)

// reserve is how many descriptors are left to the control plane, the store and
// the runtime when listeners and connections have taken all others.
const reserve = 128

// Main runs the daemon until a signal or a call ends it, and returns its exit
// code: 0 for a good end, 2 for wrong usage, 1 for all else.
func Main(args []string, stdout, stderr io.Writer) int {
	back, longNames := fdstore.Take()
	if len(args) > 0 && args[0] == "supervise" {
		return superviseMain(args[1:], back, stdout, stderr)
	}
	c, err := readConfig(args, os.Getenv, stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case errors.Is(err, errVersion):
		_, err = fmt.Fprintf(stdout, "sockmgr %s %s %s\n", Version, Commit, runtime.Version())
		return code(err)
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "Error: %v\n  try  sockmgr --help\n", err)
		return 2
	}
	writer := newLogWriter(stderr)
	defer writer.Close()
	log := newLogger(c, writer)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP) // HUP: a terminal that closes
	defer signal.Stop(signals)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGXFSZ) // a write beyond RLIMIT_FSIZE fails with EFBIG, and the daemon goes on
	if err = run(c, log, back, longNames, signals, stdout); err != nil {
		_, _ = fmt.Fprintf(stderr, "Error: %v\n", err)
	}
	return code(err)
}

func code(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

func run(c config, log hclog.Logger, back []fdstore.Returned, longNames bool, signals <-chan os.Signal, stdout io.Writer) error {
	limit, err := raiseDescriptors(c.Poller)
	if err != nil {
		return err
	}
	loggers := service.NewLoggers(log, "manager", "loop", "api", "metrics")
	dir := c.State
	if dir == "memory" {
		dir = ""
	}
	certificates, err := openControlTLS(c)
	if err != nil {
		return err
	}
	keep := newKeeper(os.Getenv("NOTIFY_SOCKET"), back, longNames, log)
	defer keep.close()
	defer keep.closeOwn()
	controls, err := listenAll(c, keep)
	if err != nil {
		return err
	}
	scraped, err := bindMetrics(keep, c.Metrics)
	if err != nil {
		return err
	}
	beside := listenHandover(keep, c.Control, log)
	m, err := newManager(manager.Config{
		Poller: c.Poller, Kept: keep.rest(), StateDir: dir, Descriptors: limit - reserve, Programs: listeners.Programs(c.ExecAllow), Metadata: c.AllowMetadata,
		Log: loggers.Logger("manager"), LoopLog: loggers.Logger("loop"),
	})
	if err != nil {
		return err
	}
	keep.unlinkOwn()
	endMetrics := serveMetrics(scraped, m, loggers.Logger("metrics"))
	ends := make(chan time.Duration, 1)
	server := service.NewServer(service.Config{
		Manager: m, Log: loggers.Logger("api"), Loggers: loggers, Info: daemonInfo(c),
		Access: c.rules, TLS: configOf(certificates), InsecureLoopback: c.InsecureLoopback, RefuseOwn: true,
		Shutdown: func(drain time.Duration) {
			select {
			case ends <- drain:
			default: // it ends already
			}
		},
	})
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if certificates != nil {
		serving.Go(func() { watchTLS(ctx, certificates, loggers.Logger("api")) })
	}
	endHandover := serveHandover(beside, m, keep, log)
	defer endHandover()
	for _, l := range controls {
		serving.Go(func() {
			if err := server.Serve(patient{l}); err != nil {
				log.Error("control address lost", "address", l.Addr(), "error", err)
			}
		})
	}
	if _, err := fmt.Fprintf(stdout, "sockmgr: ready on %s\n", strings.Join(c.Control, " ")); err != nil {
		log.Warn("nobody reads the ready line", "error", err)
	}
	log.Info("ready", "control", c.Control, "poller", m.Poller(), "store", m.Store(), "descriptors", limit)
	keep.notify("READY=1")
	err = waitAndEnd(m, log, keep, signals, ends)
	stopServer(server)
	cancel()
	serving.Wait()
	return errors.Join(err, endMetrics())
}

// newManager collects less garbage meanwhile: who waits for the listeners does
// not wait for that too.
func newManager(c manager.Config) (*manager.Manager, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	return manager.New(c)
}

// waitAndEnd waits for a reason to end and ends the manager. A second signal
// ends what is open at once.
func waitAndEnd(m *manager.Manager, log hclog.Logger, keep *keeper, signals <-chan os.Signal, ends <-chan time.Duration) error {
	m.Watch(watchdog(keep, os.Getenv))
	drain := manager.SpecDrain
	select {
	case s := <-signals:
		log.Info("signal: connections finish as their listeners' drain policies say", "signal", s.String())
	case drain = <-ends:
	case <-m.Broken():
		return errors.New("the event loop ended by itself: the log says why")
	}
	keep.notify("STOPPING=1")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	return m.Shutdown(ctx, drain)
}

// stopServer lets calls finish, but not for long: a watch never does.
func stopServer(server *grpc.Server) {
	timer := time.AfterFunc(time.Second, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

func listenAll(c config, keep *keeper) ([]net.Listener, error) {
	group, err := groupID(c.ControlGroup)
	if err != nil {
		return nil, err
	}
	var all []net.Listener
	for i, uri := range c.Control {
		listen := func() (net.Listener, error) { return listenControl(keep, uri, group) }
		if strings.HasPrefix(uri, "tcp://") {
			listen = func() (net.Listener, error) { return listenTCP(keep, uri) }
		}
		l, err := listen()
		if err != nil {
			return nil, err
		}
		if all = append(all, l); l.Addr().Network() == "tcp" {
			c.Control[i] = "tcp://" + l.Addr().String() // with the port that the kernel chose
		}
	}
	return all, nil
}

// raiseDescriptors raises the soft limit to the hard one. For select it is 1024
// at most, so that accept fails with EMFILE, after which it is tried again,
// instead of giving out a descriptor that select(2) cannot take.
func raiseDescriptors(poller string) (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	limit.Cur = limit.Max
	if poller == "select" {
		limit.Cur = min(limit.Max, unix.FD_SETSIZE)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("setrlimit", err)
	}
	if limit.Cur <= 2*reserve {
		return 0, fmt.Errorf("the limit of open files is %d: it must be above %d; raise ulimit -n or LimitNOFILE", limit.Cur, 2*reserve)
	}
	return int(min(limit.Cur, 1<<30)), nil
}

func daemonInfo(c config) *pb.DaemonInfo {
	hostname, _ := os.Hostname() // empty where it cannot be told
	info := &pb.DaemonInfo{
		Version: Version, Commit: Commit, GoVersion: runtime.Version(), ApiVersions: []string{"sockmgr.v1"},
		Hostname: hostname, Pid: int32(os.Getpid()), InstanceId: rand.Text(), StartTime: timestamppb.Now(),
	}
	for _, uri := range c.Control {
		a := &pb.SocketAddress{Uri: uri}
		if at, err := listeners.ParseAddress(uri); err == nil && at.Network == listeners.TCP {
			a.Network, a.Ip, a.Port = pb.Network_NETWORK_TCP, at.IP.Addr().String(), uint32(at.IP.Port())
		} else {
			a.Network, a.Path = pb.Network_NETWORK_UNIX, strings.TrimPrefix(uri, "unix://")
		}
		info.Control = append(info.Control, a)
	}
	return info
}
