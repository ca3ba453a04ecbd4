package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// ownSocket connects a socket of the daemon to one of its listeners, and has
// bytes come back.
func (w *world) ownSocket(address string) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, random *rand.Rand) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		made, err := w.sockets.CreateSocket(ctx, &sockmgrv1.CreateSocketRequest{Network: sockmgrv1.Network_NETWORK_TCP})
		if err != nil {
			return err
		}
		name := made.GetSocket().GetName()
		_, err = w.sockets.Connect(ctx, &sockmgrv1.ConnectRequest{Name: name, Address: "tcp://" + address})
		if err == nil {
			err = w.through(ctx, name, payload(random, 1+random.IntN(20_000)))
		}
		if _, errClose := w.sockets.CloseSocket(ctx, &sockmgrv1.CloseSocketRequest{Name: name}); err == nil {
			err = errClose
		}
		return err
	}
}

// through sends on a socket of the daemon, and takes as much back.
func (w *world) through(ctx context.Context, name string, sent []byte) error {
	if _, err := w.sockets.Send(ctx, &sockmgrv1.SendRequest{Name: name, Payload: sent, All: true}); err != nil {
		return err
	}
	var got []byte
	for len(got) < len(sent) {
		resp, err := w.sockets.Recv(ctx, &sockmgrv1.RecvRequest{Name: name, MaxBytes: 65536})
		if err != nil {
			return err
		}
		if len(resp.GetPayload()) == 0 {
			return fmt.Errorf("it ends after %d of %d bytes", len(got), len(sent))
		}
		got = append(got, resp.GetPayload()...)
	}
	if !bytes.Equal(got, sent) {
		return wrongBytes{fmt.Sprintf("%d for %d through a socket of the daemon", len(got), len(sent))}
	}
	return nil
}

// accepted connects to a listener of the handler remote, accepts that over the
// API, and has a byte go each way. There is one such worker.
func (w *world) accepted(address string) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, random *rand.Rand) error {
		c, err := dial(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // what matters has come
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		for {
			made, err := w.sockets.Accept(ctx, &sockmgrv1.AcceptRequest{Name: "listeners/remote"})
			if err != nil {
				return err
			}
			s := made.GetSocket()
			if int(s.GetRemote().GetPort()) != c.LocalAddr().(*net.TCPAddr).Port { // of one before a kill
				_, _ = w.sockets.CloseSocket(ctx, &sockmgrv1.CloseSocketRequest{Name: s.GetName()})
				continue
			}
			sent := payload(random, 100)
			if _, err := c.Write(sent); err != nil {
				return err
			}
			resp, err := w.sockets.Recv(ctx, &sockmgrv1.RecvRequest{Name: s.GetName(), MaxBytes: 1000})
			if err == nil && !bytes.Equal(resp.GetPayload(), sent) {
				err = wrongBytes{fmt.Sprintf("%d bytes of an accepted connection", len(resp.GetPayload()))}
			}
			if _, errClose := w.sockets.CloseSocket(ctx, &sockmgrv1.CloseSocketRequest{Name: s.GetName()}); err == nil {
				err = errClose
			}
			return err
		}
	}
}

// closeLeft closes sockets whose clients were cut off before they knew of them:
// after an upgrade they are there until they have been idle for five minutes.
func (w *world) closeLeft(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := w.sockets.ListSockets(ctx, &sockmgrv1.ListSocketsRequest{PageSize: 1000})
	for _, s := range resp.GetSockets() {
		if s.GetOwner() == "" || err != nil {
			continue
		}
		_, err = w.sockets.CloseSocket(ctx, &sockmgrv1.CloseSocketRequest{Name: s.GetName()})
		w.tally.refused("socket", "left behind")
	}
	return err
}

// watch follows the events until the end. Revisions never go back in one daemon.
func (w *world) watch(ctx context.Context) {
	w.workers.Go(func() {
		for ctx.Err() == nil {
			moment := w.daemon.moment()
			err := w.watchOnce(ctx)
			switch {
			case ctx.Err() != nil:
			case errors.As(err, &wrongBytes{}):
				w.tally.broke("events", "%v", err)
			case w.daemon.cutSince(moment):
				w.tally.lost("events")
			default:
				w.tally.broke("events", "the watch ended: %v", err)
			}
		}
	})
}

func (w *world) watchOnce(ctx context.Context) error {
	stream, err := w.events.WatchEvents(ctx, &sockmgrv1.WatchEventsRequest{})
	if err != nil {
		return err
	}
	for last := int64(0); ; {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		e := resp.GetEvent()
		if e.GetRevision() < last {
			return wrongBytes{fmt.Sprintf("event %v after revision %d", e, last)}
		}
		last = e.GetRevision()
		w.tally.did("events", max(0, time.Since(e.GetTime().AsTime())))
	}
}

// call makes a call of the control plane, and judges it: nil when it was
// acknowledged. A kill leaves it unsure; codes that are expected are counted.
func (w *world) call(name string, do func(context.Context) error, expected ...codes.Code) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	moment, began := w.daemon.moment(), time.Now()
	err := do(ctx)
	code := status.Code(err)
	switch {
	case err == nil:
		w.tally.did(name, time.Since(began))
		return nil
	case w.daemon.cutSince(moment) && (code == codes.Unavailable || code == codes.Canceled):
		w.tally.lost(name)
	case slices.Contains(expected, code):
		w.tally.refused(name, code.String())
	default:
		w.tally.broke(name, "%v", err)
	}
	return err
}
