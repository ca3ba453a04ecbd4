package cli

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A goal looks at a listener, nil when it is not there, and says whether the
// wait for it is over.
type goal func(l *pb.Listener) (done bool, err error)

// follower waits until each of several listeners is as it should be.
type follower struct {
	a     *app
	goals map[string]goal         // by id; those that are still waited for
	last  map[string]*pb.Listener // by id; as last seen, set by the caller to what it knows
	// reached and failed are called once for each id, one of the two.
	reached func(id string, last *pb.Listener) error
	failed  func(id string, err error)
}

// follow returns when no goal is left, or ctx ends. An error is one of
// reached: all others go to failed.
func (f *follower) follow(ctx context.Context) error {
	api, err := f.a.dial()
	for err == nil && len(f.goals) > 0 {
		err = f.watch(ctx, api)
		if fault := asFailure(err); fault != nil && fault.reason == "REVISION_COMPACTED" {
			err = nil // fell behind: the present set says all that counts
		}
	}
	if len(f.goals) == 0 {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	// The daemon's clock may see the deadline a little before ours does.
	late := ctx.Err() != nil || f.a.explain(err).code == codes.DeadlineExceeded
	for _, id := range slices.Sorted(maps.Keys(f.goals)) {
		if late {
			f.failed(id, f.tooLate(id))
		} else {
			f.failed(id, err)
		}
	}
	return nil
}

// watch follows one stream until no goal is left or it breaks.
func (f *follower) watch(ctx context.Context, api *client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := api.listeners.WatchListeners(ctx, &pb.WatchListenersRequest{SendInitial: true})
	if err != nil {
		return f.a.explain(err)
	}
	there := map[string]bool{}
	events := receive(ctx, stream.Recv)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer f.a.progress("")
	for len(f.goals) > 0 {
		var next received[*pb.WatchListenersResponse]
		select {
		case next = <-events:
		case <-ctx.Done():
			return f.a.explain(ctx.Err())
		case <-tick.C:
			if f.a.env.IsTerminal {
				f.showDrains(ctx, api)
			}
			continue
		}
		event, err := next.value, next.err
		if errors.Is(err, io.EOF) {
			return failf(codes.Unavailable, "the daemon at %s ended the watch", api.addr)
		}
		if err != nil {
			return f.a.explain(err)
		}
		if event.GetType() == pb.WatchListenersResponse_TYPE_SYNCED {
			for _, id := range slices.Sorted(maps.Keys(f.goals)) {
				if !there[id] {
					err = errors.Join(err, f.look(id, nil))
				}
			}
		} else {
			id := listenerID(event.GetListener().GetName())
			there[id] = true
			err = f.see(id, event)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// received is what a stream brought.
type received[T any] struct {
	value T
	err   error
}

// receive reads a stream until it breaks or ctx ends.
func receive[T any](ctx context.Context, next func() (T, error)) <-chan received[T] {
	all := make(chan received[T])
	go func() {
		for {
			value, err := next()
			select {
			case all <- received[T]{value, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return all
}

func (f *follower) see(id string, event *pb.WatchListenersResponse) error {
	if f.goals[id] == nil {
		return nil
	}
	f.last[id] = event.GetListener()
	if event.GetType() == pb.WatchListenersResponse_TYPE_DELETED {
		return f.look(id, nil)
	}
	return f.look(id, event.GetListener())
}

// look asks the goal of id, and takes it off when it is settled.
func (f *follower) look(id string, l *pb.Listener) error {
	done, err := f.goals[id](l)
	if err == nil && !done {
		return nil
	}
	delete(f.goals, id)
	if err != nil {
		f.failed(id, err)
		return nil
	}
	return f.reached(id, f.last[id])
}

// tooLate says what a listener was doing when time ran out.
func (f *follower) tooLate(id string) *failure {
	l := f.last[id]
	if l == nil {
		return failf(codes.DeadlineExceeded, "%s: time ran out before the daemon said what it does", id)
	}
	parts := []string{id + ": time ran out while it was " + word(l.GetStatus().GetState())}
	if n := l.GetStatus().GetActiveConnections(); n > 0 {
		parts = append(parts, plural(n, "connection")+" open")
	}
	if m := l.GetStatus().GetMessage(); m != "" {
		parts = append(parts, m)
	}
	return failf(codes.DeadlineExceeded, "%s", strings.Join(parts, ", "))
}

// gone is what happens to a goal whose listener is not there.
func gone(id string) *failure {
	f := failf(codes.NotFound, "%s: no such listener", id)
	f.reason = pb.ErrorReason_ERROR_REASON_LISTENER_NOT_FOUND.String()[len("ERROR_REASON_"):]
	return f
}
