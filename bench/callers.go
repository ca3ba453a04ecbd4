package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// callersCommand is the hidden command that calls a daemon while its data path is
// measured: TARGET RATE DURATION. In the process of the load, which spins, nobody
// else would get on.
const callersCommand = "call-beside"

// listRate is, instead of a rate of changes, ten lists of all listeners a second.
const listRate = -1

// callersSaid is what it prints.
type callersSaid struct {
	GetP99 float64 `json:"get_p99_us"`
	Made   int     `json:"made"`
	Due    int     `json:"due"`
}

// callBeside runs the command.
func callBeside(ctx context.Context, d *contender, cpu, rate int, span time.Duration, said *callersSaid) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, pinCommand, strconv.Itoa(cpu), self, callersCommand, d.conn.Target(), strconv.Itoa(rate), span.String())
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", callersCommand, err)
	}
	return json.Unmarshal(text, said)
}

// callDaemon is that command: GetListener a hundred times a second, and changes at a
// rate, over a connection for each.
func callDaemon(args []string, out io.Writer) error {
	rate, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	span, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	var conns [2]*grpc.ClientConn
	for i := range conns {
		if conns[i], err = grpc.NewClient(args[0], grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			return err
		}
		defer func() { _ = conns[i].Close() }()
	}
	ctx, stop := context.WithTimeout(context.Background(), span)
	defer stop()
	var (
		group  sync.WaitGroup
		said   callersSaid
		times  []time.Duration
		failed [2]error
	)
	group.Go(func() { times, failed[0] = gets(ctx, conns[0]) })
	if rate == listRate {
		group.Go(func() { said.Made, failed[1] = listings(ctx, conns[1]) })
	} else if rate > 0 {
		group.Go(func() { said.Made, said.Due, failed[1] = changes(ctx, conns[1], rate) })
	}
	group.Wait()
	if err := errors.Join(failed[:]...); err != nil {
		return err
	}
	if len(times) > 0 {
		said.GetP99 = us(times[len(times)*99/100])
	}
	return json.NewEncoder(out).Encode(said)
}

// every calls f at an interval until ctx ends, or f fails.
func every(ctx context.Context, interval time.Duration, f func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// gets calls GetListener a hundred times a second until ctx ends. It returns the
// times that it took, sorted.
func gets(ctx context.Context, conn *grpc.ClientConn) (times []time.Duration, err error) {
	client := sockmgrv1.NewListenerServiceClient(conn)
	err = every(ctx, 10*time.Millisecond, func() error {
		begin := time.Now()
		_, err := client.GetListener(context.WithoutCancel(ctx), &sockmgrv1.GetListenerRequest{Name: "listeners/data"})
		times = append(times, time.Since(begin))
		return err
	})
	slices.Sort(times)
	return times, err
}

// listings lists all listeners ten times a second until ctx ends.
func listings(ctx context.Context, conn *grpc.ClientConn) (made int, err error) {
	client := sockmgrv1.NewListenerServiceClient(conn)
	err = every(ctx, 100*time.Millisecond, func() error {
		_, _, err := listAll(context.WithoutCancel(ctx), client)
		made++
		return err
	})
	return made, err
}

// changes opens and deletes listeners at a rate until ctx ends. It returns how many
// were made, and how many were due.
func changes(ctx context.Context, conn *grpc.ClientConn, rate int) (made, due int, err error) {
	client := sockmgrv1.NewListenerServiceClient(conn)
	var (
		group  sync.WaitGroup
		counts [changeCallers]int
		failed [changeCallers]error
	)
	began := time.Now()
	for i := range changeCallers {
		group.Go(func() { counts[i], failed[i] = changeOne(ctx, client, i, rate/changeCallers) })
	}
	group.Wait()
	for _, n := range counts {
		made += n
	}
	return made, int(time.Since(began).Seconds() * float64(rate)), errors.Join(failed[:]...)
}

// changeOne opens and deletes one listener at a rate. The callers begin one after the
// other, so that what they ask for comes evenly.
func changeOne(ctx context.Context, client sockmgrv1.ListenerServiceClient, i, rate int) (made int, err error) {
	interval := 2 * time.Second / time.Duration(rate)
	begin := time.NewTimer(time.Duration(i) * interval / changeCallers)
	defer begin.Stop()
	select {
	case <-ctx.Done():
	case <-begin.C:
	}
	err = every(ctx, interval, func() error {
		whole, id := context.WithoutCancel(ctx), fmt.Sprintf("change-%d-%d-%d", os.Getpid(), i, made)
		_, err := client.CreateListener(whole, &sockmgrv1.CreateListenerRequest{ListenerId: id, Listener: &sockmgrv1.Listener{
			Spec: &sockmgrv1.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: echoHandler()},
		}})
		if err == nil {
			_, err = client.DeleteListener(whole, &sockmgrv1.DeleteListenerRequest{Name: "listeners/" + id, DrainTimeout: durationpb.New(0)})
		}
		if err == nil {
			made += 2
		}
		return err
	})
	return made, err
}
