package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// notConnected is a connect that the kernel has refused, or nobody answered: no
// kill is a reason for that.
type notConnected struct{ err error }

func (e notConnected) Error() string { return "a connect failed: " + e.err.Error() }

// wrongBytes are others than were sent.
type wrongBytes struct{ what string }

func (e wrongBytes) Error() string { return "other bytes came back: " + e.what }

// worker does something again and again, each time within one connection, and
// judges what came of it.
func (w *world) worker(ctx context.Context, name string, i int, op func(context.Context, *rand.Rand) error) {
	w.workers.Go(func() {
		random := rand.New(rand.NewPCG(w.seed, uint64(i)))
		pace := time.NewTicker(w.pace)
		defer pace.Stop()
		for ctx.Err() == nil {
			<-pace.C
			moment, began := w.daemon.moment(), time.Now()
			err := op(context.WithoutCancel(ctx), random)
			switch {
			case err == nil:
				w.tally.did(name, time.Since(began))
			case errors.As(err, &notConnected{}), errors.As(err, &wrongBytes{}):
				w.tally.broke(name, "%v", err)
			case errors.Is(err, errLostDatagram), w.daemon.killedSince(moment), status.Code(err) == codes.Unavailable && w.daemon.cutSince(moment):
				w.tally.lost(name)
			case status.Code(err) == codes.FailedPrecondition && w.daemon.cutSince(moment):
				w.tally.refused(name, "in an upgrade") // its listener was on the way
			default:
				w.tally.broke(name, "no kill, and yet: %v", err)
			}
		}
	})
}

var dialer = net.Dialer{Timeout: patience}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, notConnected{err}
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// echoes has some pieces come back over one connection.
func echoes(network, address string, most int) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, random *rand.Rand) error {
		c, err := dial(ctx, network, address)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // what matters has come
		for range 1 + random.IntN(4) {
			if err := exchange(c, payload(random, 1+random.IntN(most))); err != nil {
				return err
			}
		}
		return nil
	}
}

func payload(random *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	return p
}

// exchange sends, and takes as much back, at the same time.
func exchange(c net.Conn, sent []byte) error {
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		written <- err
	}()
	got := make([]byte, len(sent))
	n, err := io.ReadFull(c, got)
	if err != nil {
		_ = c.Close() // so that the writer ends
	}
	err = errors.Join(err, <-written)
	if !bytes.Equal(got[:n], sent[:n]) {
		at := 0
		for got[at] == sent[at] {
			at++
		}
		return wrongBytes{fmt.Sprintf("of %d, at %d", len(sent), at)}
	}
	return err
}

// gets asks over connections that are kept, and looks at every byte.
func gets(address, body string) func(context.Context, *rand.Rand) error {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		MaxIdleConnsPerHost: 1, DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, notConnected{err}
			}
			return c, nil
		},
	}}
	return func(ctx context.Context, random *rand.Rand) error {
		if random.IntN(200) == 0 {
			client.CloseIdleConnections()
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // it was read
		got, err := io.ReadAll(resp.Body)
		if err == nil && (string(got) != body || resp.StatusCode != http.StatusOK) {
			return wrongBytes{fmt.Sprintf("status %d, %q", resp.StatusCode, got)}
		}
		return err
	}
}

var errLostDatagram = errors.New("no answer to a datagram")

// datagrams sends on one socket, which hears if nobody has the port.
func datagrams(address string) (func(context.Context, *rand.Rand) error, error) {
	c, err := net.Dial("udp", address)
	if err != nil {
		return nil, err
	}
	got := make([]byte, 2048)
	var sent [][]byte // the last ones
	return func(_ context.Context, random *rand.Rand) error {
		p := payload(random, 16+random.IntN(1000))
		if sent = append(sent, p); len(sent) > 64 {
			sent = sent[1:]
		}
		if _, err := c.Write(p); err != nil {
			return heard(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		for {
			n, err := c.Read(got)
			var timeout net.Error
			switch {
			case errors.As(err, &timeout) && timeout.Timeout():
				return errLostDatagram
			case err != nil:
				return heard(err)
			case bytes.Equal(got[:n], p):
				return nil
			case !slices.ContainsFunc(sent, func(p []byte) bool { return bytes.Equal(p, got[:n]) }):
				return wrongBytes{fmt.Sprintf("a datagram of %d bytes that was never sent", n)}
			} // else one that was given up
		}
	}, nil
}

func heard(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return notConnected{err}
	}
	return err
}
