package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

type desired = sockmgrv1.ListenerSpec_DesiredState

const (
	running = sockmgrv1.ListenerSpec_DESIRED_STATE_RUNNING
	paused  = sockmgrv1.ListenerSpec_DESIRED_STATE_PAUSED
	stopped = sockmgrv1.ListenerSpec_DESIRED_STATE_STOPPED
)

// known is what the daemon has acknowledged of one listener.
type known struct {
	there   bool
	backlog float64
	desired desired
	unsure  bool // a call was under way when the daemon was killed
}

// changer makes, changes and deletes one listener until the end. After a kill it
// looks whether what was acknowledged is so.
func (w *world) changer(ctx context.Context, i int) {
	w.workers.Go(func() {
		random := rand.New(rand.NewPCG(w.seed, 1000+uint64(i)))
		pace := time.NewTicker(5 * w.pace)
		defer pace.Stop()
		name, k, looked := fmt.Sprintf("changed-%d", i), known{}, w.daemon.moment()
		for ctx.Err() == nil {
			<-pace.C
			if moment := w.daemon.moment(); k.unsure || moment != looked && moment.kills%2 == 0 {
				if is, err := w.look(name); err == nil {
					if !k.unsure && is != k {
						w.tally.broke("acknowledged", "%s is %+v, and was acknowledged to be %+v", name, is, k)
					}
					w.tally.did("acknowledged", 0)
					k, looked = is, moment
				}
				continue
			}
			w.change(name, &k, random)
		}
		if k.there || k.unsure {
			_ = w.remove(name, true)
		}
	})
}

func echoSpec(uris ...string) *sockmgrv1.ListenerSpec {
	return &sockmgrv1.ListenerSpec{Listen: uris, Handler: &sockmgrv1.Handler{Kind: &sockmgrv1.Handler_Echo{Echo: &sockmgrv1.EchoHandler{}}}}
}

// change makes some change of a listener.
func (w *world) change(name string, k *known, random *rand.Rand) {
	next := *k
	var err error
	backlog := func() map[string]*structpb.Value {
		next.backlog = float64(1 + random.IntN(1000))
		return map[string]*structpb.Value{"backlog": structpb.NewNumberValue(next.backlog)}
	}
	switch what := random.IntN(8); {
	case !k.there:
		next = known{there: true, desired: running}
		spec := echoSpec([]string{"tcp://127.0.0.1:0", "udp://127.0.0.1:0", "tcp://127.0.0.1:0"}[:1+2*random.IntN(2)]...)
		spec.Options = backlog()
		err = w.call("create", func(ctx context.Context) error {
			_, err := w.list.CreateListener(ctx, &sockmgrv1.CreateListenerRequest{ListenerId: name, Listener: &sockmgrv1.Listener{Spec: spec}})
			return err
		}, codes.AlreadyExists) // deleted, and on its way
		if status.Code(err) == codes.AlreadyExists {
			return
		}
	case what == 0:
		next, err = known{}, w.remove(name, false)
	case what == 1:
		next.desired = stopped
		err = w.call("stop", func(ctx context.Context) error {
			_, err := w.list.StopListener(ctx, &sockmgrv1.StopListenerRequest{Name: name, DrainTimeout: durationpb.New(0)})
			return err
		})
	case what == 2:
		next.desired = running
		err = w.call("start", func(ctx context.Context) error {
			_, err := w.list.StartListener(ctx, &sockmgrv1.StartListenerRequest{Name: name})
			return err
		})
	case what == 3 && k.desired == running:
		next.desired = paused
		err = w.call("pause", func(ctx context.Context) error {
			_, err := w.list.PauseListener(ctx, &sockmgrv1.PauseListenerRequest{Name: name})
			return err
		})
	default:
		options := backlog()
		err = w.call("tune", func(ctx context.Context) error {
			_, err := w.tuning.SetOptions(ctx, &sockmgrv1.SetOptionsRequest{Target: name, Options: options})
			return err
		})
	}
	if *k = next; err != nil {
		k.unsure = true
	}
}

// remove deletes a listener, one that is not there too if it may be missing.
func (w *world) remove(name string, missing bool) error {
	return w.call("delete", func(ctx context.Context) error {
		_, err := w.list.DeleteListener(ctx, &sockmgrv1.DeleteListenerRequest{Name: name, DrainTimeout: durationpb.New(0), AllowMissing: missing})
		return err
	})
}

// look reads a listener, and has a byte come back if it runs.
func (w *world) look(name string) (k known, err error) {
	var l *sockmgrv1.Listener
	err = w.call("get", func(ctx context.Context) error {
		resp, err := w.list.GetListener(ctx, &sockmgrv1.GetListenerRequest{Name: name})
		l = resp.GetListener()
		return err
	}, codes.NotFound)
	switch {
	case status.Code(err) == codes.NotFound, strings.HasPrefix(l.GetStatus().GetMessage(), "being deleted"):
		return known{}, nil
	case err != nil:
		return known{}, err
	}
	k = known{there: true, backlog: l.GetSpec().GetOptions()["backlog"].GetNumberValue(), desired: l.GetSpec().GetDesiredState()}
	if k.desired != running {
		return k, nil
	}
	moment := w.daemon.moment()
	for _, a := range l.GetStatus().GetBound() {
		network, address, _ := strings.Cut(a.GetUri(), "://")
		if network != "tcp" {
			continue
		}
		if err := echoes(network, address, 10)(context.Background(), rand.New(rand.NewPCG(0, 0))); err != nil && !w.daemon.killedSince(moment) {
			w.tally.broke("acknowledged", "%s runs, and %s: %v: %v", name, a.GetUri(), err, l.GetStatus())
		}
	}
	if len(l.GetStatus().GetBound()) == 0 {
		w.tally.broke("acknowledged", "%s should run and has no address: %v", name, l.GetStatus())
	}
	return k, nil
}

// applier wishes for sets of listeners, all or nothing, and counts after a kill.
func (w *world) applier(ctx context.Context) {
	w.workers.Go(func() {
		random := rand.New(rand.NewPCG(w.seed, 2000))
		pace := time.NewTicker(50 * w.pace)
		defer pace.Stop()
		const owner = "soak"
		apply := func(n int) error {
			r := &sockmgrv1.ApplyListenersRequest{Manager: owner, Prune: true, Atomic: true}
			for i := range n {
				spec := echoSpec("tcp://127.0.0.1:0")
				spec.Options = map[string]*structpb.Value{"backlog": structpb.NewNumberValue(float64(1 + random.IntN(100)))}
				r.Listeners = append(r.Listeners, &sockmgrv1.Listener{Name: fmt.Sprintf("applied-%d", i), Spec: spec})
			}
			return w.call("apply", func(ctx context.Context) error {
				_, err := w.list.ApplyListeners(ctx, r)
				return err
			}, codes.FailedPrecondition) // one of them is being deleted still
		}
		for have, sure := 0, true; ctx.Err() == nil; {
			<-pace.C
			n := random.IntN(40)
			moment := w.daemon.moment()
			switch err := apply(n); {
			case err == nil:
				have, sure = n, true
			case w.daemon.cutSince(moment):
				sure = false
			}
			if !sure {
				continue
			}
			var got int
			err := w.call("list", func(ctx context.Context) error {
				resp, err := w.list.ListListeners(ctx, &sockmgrv1.ListListenersRequest{PageSize: 1000, Filter: `manager = "` + owner + `"`})
				got = 0
				for _, l := range resp.GetListeners() {
					if !strings.HasPrefix(l.GetStatus().GetMessage(), "being deleted") && l.GetStatus().GetState() != sockmgrv1.ListenerStatus_STATE_DRAINING {
						got++
					}
				}
				return err
			})
			if err == nil && got != have {
				w.tally.broke("apply", "%d listeners are there, of %d that were applied", got, have)
			}
		}
		for errors.Join(apply(0)) != nil {
			<-pace.C
		}
	})
}

// meddler changes the listeners that the load is on, in ways that no client may
// notice but for its time.
func (w *world) meddler(ctx context.Context) {
	w.workers.Go(func() {
		random := rand.New(rand.NewPCG(w.seed, 3000))
		pace := time.NewTicker(25 * w.pace)
		defer pace.Stop()
		names := []string{"echo", "http", "forward", "path", "datagrams"}
		for ctx.Err() == nil {
			<-pace.C
			name := names[random.IntN(len(names))]
			switch random.IntN(4) {
			case 0:
				w.hold(name, pace.C)
			case 1:
				_ = w.rebind(name, random.IntN(2) == 0)
			default:
				options := map[string]*structpb.Value{"backlog": structpb.NewNumberValue(float64(512 + random.IntN(1000))), "idle_timeout": structpb.NewStringValue("5m")}
				if name == "datagrams" {
					options = map[string]*structpb.Value{"receive_buffer_bytes": structpb.NewNumberValue(float64(100_000 + random.IntN(100_000)))}
				}
				_ = w.call("tune", func(ctx context.Context) error {
					_, err := w.tuning.SetOptions(ctx, &sockmgrv1.SetOptionsRequest{Target: name, Options: options})
					return err
				})
			}
		}
		for _, name := range names {
			w.resume(name)
			for w.rebind(name, false) != nil {
				<-pace.C
			}
		}
	})
}

// hold pauses and resumes: who connects waits in the queue.
func (w *world) hold(name string, until <-chan time.Time) {
	_ = w.call("pause", func(ctx context.Context) error {
		_, err := w.list.PauseListener(ctx, &sockmgrv1.PauseListenerRequest{Name: name, Mode: sockmgrv1.PauseMode_PAUSE_MODE_HOLD})
		return err
	})
	<-until
	w.resume(name)
}

func (w *world) resume(name string) {
	for w.call("resume", func(ctx context.Context) error {
		_, err := w.list.ResumeListener(ctx, &sockmgrv1.ResumeListenerRequest{Name: name})
		return err
	}) != nil { //nolint:revive // until a daemon has acknowledged it
	}
}

// rebind adds an address to a listener, or takes it away; the others stay.
func (w *world) rebind(name string, more bool) error {
	listen := []string{w.steady[name]}
	extra := map[string]string{"datagrams": "udp://127.0.0.1:0", "path": "unix://" + w.daemon.dir + "/extra"}[name]
	if extra == "" {
		extra = "tcp://[::1]:0"
	}
	if more {
		listen = append(listen, extra)
	}
	return w.call("rebind", func(ctx context.Context) error {
		_, err := w.list.UpdateListener(ctx, &sockmgrv1.UpdateListenerRequest{
			Listener:   &sockmgrv1.Listener{Name: name, Spec: &sockmgrv1.ListenerSpec{Listen: listen}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spec.listen"}}, AllowRebind: true,
		})
		return err
	})
}

// drainer has connections open, drains their listener, and takes it back.
func (w *world) drainer(ctx context.Context) {
	w.workers.Go(func() {
		pace := time.NewTicker(100 * w.pace)
		defer pace.Stop()
		for ctx.Err() == nil {
			<-pace.C
			c, err := dial(ctx, "tcp", w.bound["drained"])
			if err != nil {
				if ctx.Err() == nil {
					w.tally.broke("drain", "%v", err)
				}
				continue
			}
			_ = w.call("drain", func(ctx context.Context) error {
				_, err := w.list.DrainListener(ctx, &sockmgrv1.DrainListenerRequest{Name: "drained", Timeout: durationpb.New(10 * time.Millisecond)})
				return err
			})
			if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
				w.tally.broke("drain", "a connection that nobody wrote to has bytes")
			}
			_ = c.Close()
			w.resume("drained")
		}
	})
}
