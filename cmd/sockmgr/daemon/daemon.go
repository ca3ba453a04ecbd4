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
	from, err := meet()
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "Error: the daemon before: %v\n", err)
		return 1
	}
	c, err := readConfig(args, os.Getenv, stdout)
	if from != nil && err != nil {
		from.fail(err)
		return 2
	}
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
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP) // HUP: a terminal that closes
	defer signal.Stop(signals)
	// What the daemon cannot write it can do without: a log that nobody reads any
	// more (EPIPE), a file beyond RLIMIT_FSIZE (EFBIG).
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGXFSZ)
	next, err := run(c, log, back, longNames, from, signals, stdout)
	switch {
	case err != nil && from != nil:
		from.fail(err)
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "Error: %v\n", err)
	case next != nil:
		writer.Close()
		return next.watchOver(from != nil, signals, stderr)
	}
	return code(err)
}

func code(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

func run(c config, log hclog.Logger, back []fdstore.Returned, longNames bool, from *predecessor, signals chan os.Signal, stdout io.Writer) (*legacy, error) {
	limit, err := raiseDescriptors(c.Poller)
	if err != nil {
		return nil, err
	}
	loggers := service.NewLoggers(log, "manager", "loop", "api", "metrics")
	certificates, err := openControlTLS(c)
	if err != nil {
		return nil, err
	}
	if from != nil {
		back, longNames = from.own, from.begin.LongNames
	}
	keep := newKeeper(os.Getenv("NOTIFY_SOCKET"), back, longNames, log)
	defer keep.close()
	if from != nil {
		keep.hold(from.told)
		defer from.release()
	}
	defer keep.closeOwn()
	own, err := bindOwn(c, keep, log)
	if err != nil {
		return nil, err
	}
	m, err := newManager(managerConfig(c, keep, loggers, limit), from, keep)
	if err != nil {
		return nil, err
	}
	keep.unlinkOwn()
	up := &upgrader{log: log, m: m, keep: keep, longNames: longNames, succeeded: from != nil, former: from.former(), done: make(chan *legacy, 1)}
	endMetrics := serveMetrics(own.metrics, m, loggers.Logger("metrics"))
	ends := make(chan time.Duration, 1)
	server := newServer(c, loggers, certificates, up, ends)
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if certificates != nil {
		serving.Go(func() { watchTLS(ctx, certificates, loggers.Logger("api")) })
	}
	endHandover := serveHandover(own.beside, m, keep, c.rules, loggers.Logger("api"))
	defer endHandover()
	serveControls(&serving, server, own.controls, log)
	printReady(stdout, c.Control, from, log)
	log.Info("ready", "control", c.Control, "poller", m.Poller(), "store", m.Store(), "descriptors", limit, "took_over", from != nil)
	keep.notify("READY=1")
	watchUpgradeSignal(ctx, up)
	next, err := waitAndEnd(m, log, keep, signals, ends, up, c.Control, stopper(server))
	cancel()
	serving.Wait()
	if errMetrics := endMetrics(); next == nil { // else its socket was left to another process
		err = errors.Join(err, errMetrics)
	}
	return next, err
}

// waitAndEnd waits for a reason to end and ends the manager, and then calls. A
// second signal ends what is open at once.
func waitAndEnd(m *manager.Manager, log hclog.Logger, keep *keeper, signals chan os.Signal, ends <-chan time.Duration, up *upgrader, controls []string, stop func()) (*legacy, error) {
	defer stop()
	m.Watch(watchdog(keep, os.Getenv))
	drain := manager.SpecDrain
	select {
	case next := <-up.done:
		go stop() // clients that are connected call the process that has taken over, however long this one drains
		next.controls = controls
		return next, next.retire(up, signals)
	case s := <-signals:
		log.Info("signal: connections finish as their listeners' drain policies say", "signal", s.String())
	case drain = <-ends:
	case <-m.Broken():
		up.end() // or the program that was to take over stays
		return nil, errors.New("the event loop ended by itself: the log says why")
	}
	if next := up.end(); next != nil { // just then it was upgraded: the end is for the process that has taken over
		go stop()
		next.controls, next.ended = controls, true
		next.pass(syscall.SIGTERM)
		return next, next.retire(up, signals)
	}
	keep.notify("STOPPING=1")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		began := time.Now()
		for {
			select {
			case <-signals:
				if up.succeeded && time.Since(began) < sameSignal {
					continue
				}
				cancel()
			case <-ctx.Done():
			}
			return
		}
	}()
	return nil, m.Shutdown(ctx, drain)
}

// sameSignal is for how long another signal is taken for the first one, by a
// process that has taken over: it comes from who sent it to the process before,
// and from that one as well.
const sameSignal = 200 * time.Millisecond

// stopper lets calls finish, but not for long: a watch never does.
func stopper(server *grpc.Server) (stop func()) {
	return sync.OnceFunc(func() {
		timer := time.AfterFunc(time.Second, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	})
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
	growTable(int(min(limit.Cur, mostTable)))
	return int(min(limit.Cur, 1<<30)), nil
}

// mostTable bounds the table of descriptors that is made at the start: 8 bytes each.
const mostTable = 1 << 16

// growTable makes the kernel's table of descriptors as large as it may get. The
// kernel doubles it when it is full, and of a process with threads that takes an RCU
// grace period each time: 7 to 9 ms in which socket(2), or accept(2) on the loop,
// waits. Now nobody does.
func growTable(count int) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return // then it grows later
	}
	if last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, count-1); err == nil {
		_ = unix.Close(last)
	}
	_ = unix.Close(fd)
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
