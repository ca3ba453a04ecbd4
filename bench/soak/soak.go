package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// world is all there is in one run.
type world struct {
	config
	daemon *supervised
	tally  *tally

	list    sockmgrv1.ListenerServiceClient
	tuning  sockmgrv1.TuningServiceClient
	events  sockmgrv1.EventServiceClient
	sockets sockmgrv1.SocketServiceClient

	steady map[string]string // listeners under load: what they listen on
	bound  map[string]string // and where the kernel has put them

	backend net.Listener
	workers sync.WaitGroup
}

// Kills and upgrades are in this part of the time; in the rest one daemon has all the load, so
// that what it leaves behind shows.
const killsUntil = 0.6

const httpBody = "soak\n"

func soak(ctx context.Context, c config, out io.Writer) (err error) {
	bin, err := filepath.Abs(c.bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	if c.keep {
		printf(out, "log and state: %s\n", dir)
	} else {
		defer os.RemoveAll(dir) //nolint:errcheck // it is below the temporary directory
	}
	printf(out, "soak: %v, seed %d\n", c.length, c.seed)
	w := &world{config: c, tally: newTally(), bound: map[string]string{}}
	if w.daemon, err = startDaemon(ctx, bin, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.daemon.stop()) }()
	if w.upgradeEvery > 0 && !w.daemon.canUpgrade(ctx) {
		w.upgradeEvery = 0
		printf(out, "soak: %s/sockctl has no daemon upgrade: the daemon is killed only\n", c.bin)
	}
	if w.backend, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	defer w.backend.Close() //nolint:errcheck // the end
	go w.serveBackend()
	if err := w.makeListeners(ctx); err != nil {
		return err
	}
	return w.run(ctx, out)
}

// run has the load twice: to warm up, so that what is made once is there, and
// for the time that was asked for.
func (w *world) run(ctx context.Context, out io.Writer) error {
	c := w.config
	if err := w.load(ctx, c.length/20, false); err != nil {
		return err
	}
	begin, err := w.daemon.measure(ctx)
	if err != nil {
		return err
	}
	w.tally = newTally()
	if err := w.load(ctx, c.length, true); err != nil {
		return err
	}
	if err := w.closeLeft(ctx); err != nil {
		return err
	}
	end, wrong, err := w.daemon.settle(ctx, begin)
	if err != nil {
		return err
	}
	broken := w.tally.print(out)
	printf(out, "\n")
	printResources(out, begin, end)
	for _, text := range wrong {
		printf(out, "BROKEN %s\n", text)
	}
	if broken+len(wrong) > 0 {
		return fmt.Errorf("%d promises were broken; again: soak --seed %d --for %v", broken+len(wrong), c.seed, c.length)
	}
	printf(out, "soak: no promise was broken\n")
	return nil
}

// makeListeners makes what is there all the time.
func (w *world) makeListeners(ctx context.Context) error {
	conn := w.daemon.conn
	w.list, w.tuning = sockmgrv1.NewListenerServiceClient(conn), sockmgrv1.NewTuningServiceClient(conn)
	w.events, w.sockets = sockmgrv1.NewEventServiceClient(conn), sockmgrv1.NewSocketServiceClient(conn)
	w.steady = map[string]string{
		"echo": "tcp://127.0.0.1:0", "http": "tcp://127.0.0.1:0", "forward": "tcp://127.0.0.1:0", "path": "unix://" + w.daemon.dir + "/path",
		"abstract": "unix://@soak-" + filepath.Base(w.daemon.dir), "datagrams": "udp://127.0.0.1:0", "remote": "tcp://127.0.0.1:0", "drained": "tcp://127.0.0.1:0",
	}
	for name, uri := range w.steady {
		spec := echoSpec(uri)
		switch name {
		case "http":
			spec.Handler.Kind = &sockmgrv1.Handler_Http{Http: &sockmgrv1.HttpHandler{Status: 200, Body: []byte(httpBody)}}
		case "forward":
			to := &sockmgrv1.Upstream{Address: "tcp://" + w.backend.Addr().String()}
			spec.Handler.Kind = &sockmgrv1.Handler_Forward{Forward: &sockmgrv1.ForwardHandler{Upstreams: []*sockmgrv1.Upstream{to}}}
		case "remote":
			spec.Handler.Kind = &sockmgrv1.Handler_Remote{Remote: &sockmgrv1.RemoteHandler{}}
		}
		resp, err := w.list.CreateListener(ctx, &sockmgrv1.CreateListenerRequest{ListenerId: name, Listener: &sockmgrv1.Listener{Spec: spec}})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, w.bound[name], _ = strings.Cut(resp.GetListener().GetStatus().GetBound()[0].GetUri(), "://")
	}
	return nil
}

// serveBackend gives back what it is sent.
func (w *world) serveBackend() {
	for {
		c, err := w.backend.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			w.tally.broke("backend", "%v", err)
			return
		}
		go func() {
			defer c.Close() //nolint:errcheck // the client sees what was lost
			_, _ = io.Copy(c, c)
		}()
	}
}

// load runs everything for a while.
func (w *world) load(ctx context.Context, length time.Duration, disturbed bool) error {
	ctx, cancel := context.WithCancel(ctx) // no deadline, which the daemon would know of
	defer cancel()
	defer time.AfterFunc(length, cancel).Stop()
	udp, err := datagrams(w.bound["datagrams"])
	if err != nil {
		return err
	}
	for i := range 2 {
		w.worker(ctx, "tcp echo", 10+i, echoes("tcp", w.bound["echo"], 4000))
		w.worker(ctx, "http", 20+i, gets(w.bound["http"], httpBody))
		w.worker(ctx, "forward", 30+i, echoes("tcp", w.bound["forward"], 200_000))
	}
	w.worker(ctx, "unix path", 40, echoes("unix", w.bound["path"], 4000))
	w.worker(ctx, "unix abstract", 41, echoes("unix", w.bound["abstract"], 4000))
	w.worker(ctx, "udp echo", 50, udp)
	w.worker(ctx, "socket", 60, w.ownSocket(w.bound["echo"]))
	w.worker(ctx, "accept", 61, w.accepted(w.bound["remote"]))
	w.watch(ctx)
	for i := range 4 {
		w.changer(ctx, i)
	}
	w.applier(ctx)
	w.meddler(ctx)
	w.drainer(ctx)
	end := time.Now()
	if disturbed {
		end = end.Add(time.Duration(killsUntil * float64(length)))
	}
	err = w.disturb(ctx, end)
	if err != nil {
		cancel()
	}
	w.workers.Wait()
	return err
}
