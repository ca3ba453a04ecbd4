//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// startDaemon runs sockmgr in dir until it is killed.
func startDaemon(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sockmgr", "--control", "unix://"+dir+"/c", "--state", dir+"/state", "--log-level", "error")
	out := &firstLine{ready: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-out.ready:
	case <-timer.C:
		t.Fatal("the daemon is not ready")
	}
	return cmd
}

// known is what the daemon has acknowledged of one listener.
type known struct {
	there   bool
	backlog float64
	stopped bool
}

// A client is what the daemon has acknowledged of one listener, and what it was
// asked for when it was killed.
type client struct {
	known
	next  known
	asked bool
}

// What the daemon has acknowledged before kill -9 is so afterwards: what was
// made is there and runs, with the options that it had last; what was stopped
// is stopped; what was deleted is not there. CRASH_KILLS=1000 is the long form.
func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	const clients = 8
	var all [clients]client // each has one listener
	kills := fromEnv(t, "CRASH_KILLS", 100)
	acknowledged, compared, made := int64(0), 0, 0
	for range kills {
		daemon := startDaemon(t, dir)
		conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "c"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		for i := range all {
			compared++
			if verify(ctx, t, pb.NewListenerServiceClient(conn), i, &all[i]) {
				made++
			}
		}
		var done atomic.Int64
		changes := int64(1 + rand.IntN(60))
		enough := make(chan struct{})
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() {
				for change(ctx, conn, i, &all[i]) {
					if done.Add(1) == changes {
						close(enough)
					}
				}
			})
		}
		select {
		case <-enough:
		case <-ctx.Done():
			t.Error("nothing goes on")
		}
		if err := daemon.Process.Kill(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		cancel()
		conn.Close()
		_ = daemon.Wait() // it was killed
		acknowledged += done.Load()
	}
	t.Logf("%d kills: %d changes acknowledged; %d listeners compared afterwards, all as acknowledged; of changes under way %d were made, all others were not",
		kills, acknowledged, compared, made)
}

// change makes some change of a listener, and is false when the daemon is gone.
func change(ctx context.Context, conn *grpc.ClientConn, i int, k *client) bool {
	listeners, tuning := pb.NewListenerServiceClient(conn), pb.NewTuningServiceClient(conn)
	name, next := fmt.Sprintf("l%d", i), k.known
	var err error
	switch what := rand.IntN(6); {
	case !k.there:
		next = known{there: true, backlog: float64(1 + rand.IntN(1000))}
		_, err = listeners.CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: name, Listener: &pb.Listener{Spec: &pb.ListenerSpec{
			Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}},
			Options: map[string]*structpb.Value{"backlog": structpb.NewNumberValue(next.backlog)},
		}}})
	case what == 0:
		next = known{}
		_, err = listeners.DeleteListener(ctx, &pb.DeleteListenerRequest{Name: name, DrainTimeout: durationpb.New(0)})
	case what == 1:
		next.stopped = true
		_, err = listeners.StopListener(ctx, &pb.StopListenerRequest{Name: name, DrainTimeout: durationpb.New(0)})
	case what == 2:
		next.stopped = false
		_, err = listeners.StartListener(ctx, &pb.StartListenerRequest{Name: name})
	default:
		next.backlog = float64(1 + rand.IntN(1000))
		_, err = tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: name, Options: map[string]*structpb.Value{"backlog": structpb.NewNumberValue(next.backlog)}})
	}
	switch status.Code(err) {
	case codes.OK:
		k.known = next
		return true
	case codes.AlreadyExists: // deleted, and on its way
		return true
	default:
		k.next, k.asked = next, true
		return false
	}
}

// verify compares a listener with what is known of it: a change that was under
// way was made, or was not.
func verify(ctx context.Context, t *testing.T, listeners pb.ListenerServiceClient, i int, k *client) (made bool) {
	t.Helper()
	name := fmt.Sprintf("l%d", i)
	list, err := listeners.ListListeners(ctx, &pb.ListListenersRequest{Filter: `name = "listeners/` + name + `"`})
	if err != nil {
		t.Fatal(err)
	}
	is := known{}
	if len(list.GetListeners()) == 1 {
		l := list.GetListeners()[0]
		is = known{
			there: true, backlog: l.GetSpec().GetOptions()["backlog"].GetNumberValue(),
			stopped: l.GetSpec().GetDesiredState() == pb.ListenerSpec_DESIRED_STATE_STOPPED,
		}
		runs := l.GetStatus().GetState() == pb.ListenerStatus_STATE_RUNNING
		if runs == is.stopped || runs && float64(l.GetStatus().GetAcceptQueueLimit()) != is.backlog {
			t.Errorf("%s is not as it says: %v", name, l)
		}
	}
	made = is != k.known
	if made && (!k.asked || is != k.next) {
		t.Errorf("%s is %+v, was acknowledged to be %+v, and asked to be %+v", name, is, k.known, k.next)
	}
	*k = client{known: is}
	return made
}

// A daemon whose log nobody reads any more goes on without one.
func TestLogThatNobodyReads(t *testing.T) {
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sockmgr", "--control", "unix://"+dir+"/c", "--state", "memory", "--log-level", "trace")
	out := &firstLine{ready: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	<-out.ready
	if err := errors.Join(w.Close(), r.Close()); err != nil { // from here on a write is EPIPE
		t.Fatal(err)
	}
	for i := range 20 {
		start := exec.Command("sockctl", "--addr", "unix://"+dir+"/c", "start", fmt.Sprintf("l%d", i), "--listen", "tcp://127.0.0.1:0", "--handler", "echo")
		if text, err := start.CombinedOutput(); err != nil {
			t.Fatalf("call %d: %v: %s", i, err, text)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended = true
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
