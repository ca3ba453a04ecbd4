package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	daemon "github.com/sockmgr/sockmgr/client"
)

func (a *app) connectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "connect ADDRESS",
		Short: "Connect from the daemon's host, and join the connection to this terminal",
		Long: "connect makes a connection from the daemon's host, as nc does from this one: what is typed is sent, what comes is\n" +
			"printed. The end of standard input is passed on. When the other side has finished, sockctl sends what standard input\n" +
			"has, and ends at its end or when nothing came of it for half a second.",
		Example:           "  sockctl connect tcp://127.0.0.1:6379\n  echo PING | sockctl connect unix:///run/redis.sock",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		network, address, found := strings.Cut(args[0], "://")
		if !found {
			return usagef("%q is not an address: want tcp://HOST:PORT or unix:///PATH", args[0])
		}
		api, err := a.dial()
		if err != nil {
			return err
		}
		bounded, cancel := a.within(ctx, 0)
		defer cancel()
		d := daemon.New(api.conn)
		defer func() { _ = d.Close() }() // once the connection is closed in the daemon
		conn, err := d.DialContext(bounded, network, address)
		if err != nil {
			return socketFailure(err)
		}
		return a.join(ctx, conn)
	})
	return c
}

func (a *app) acceptCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "accept LISTENER|ADDRESS",
		Short: "Take one connection of a listener, and join it to this terminal",
		Long: "accept waits for a connection of a listener with the handler remote, or of a socket that it makes at ADDRESS and closes\n" +
			"again. What is typed is sent, what comes is printed. It waits as long as it takes, unless --timeout is given.",
		Example:           "  sockctl accept web\n  sockctl accept tcp://127.0.0.1:9000 <answer.txt",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeListeners,
	}
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		if !c.Flags().Changed("timeout") {
			a.timeout = 0
		}
		api, err := a.dial()
		if err != nil {
			return err
		}
		d := daemon.New(api.conn)
		defer func() { _ = d.Close() }() // once the connection is closed in the daemon
		l, err := d.Listen(ctx, args[0])
		if err != nil {
			return socketFailure(err)
		}
		defer func() { _ = l.Close() }() // what of it failed is closed by the daemon
		if strings.HasSuffix(args[0], ":0") {
			a.note("waits at %s", l.Addr())
		}
		conn, err := interruptible(ctx, l.Accept)
		if err != nil {
			return socketFailure(err)
		}
		a.note("connection from %s", conn.RemoteAddr())
		return a.join(ctx, conn)
	})
	return c
}

// socketFailure is what the daemon said: what was tried stands in it.
func socketFailure(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// stillSending is how long standard input may say nothing once the other side
// has finished: a file is sent to its end, and a terminal holds nobody up.
const stillSending = 500 * time.Millisecond

// join copies standard input to the connection and what comes to the output,
// until the other side has finished and what standard input has is sent.
func (a *app) join(ctx context.Context, conn net.Conn) error {
	defer func() { _ = conn.Close() }() // what failed was told by Read
	idle := time.NewTimer(stillSending)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(conn, reader(func(b []byte) (int, error) { // if the connection fails, Read tells
			n, err := a.env.Stdin.Read(b)
			idle.Reset(stillSending)
			return n, err
		}))
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if _, err := interruptible(ctx, func() (int64, error) { return io.Copy(a.env.Stdout, conn) }); err != nil {
		return socketFailure(err)
	}
	idle.Reset(stillSending)
	select {
	case <-sent:
	case <-idle.C:
	case <-ctx.Done():
	}
	return nil
}

type reader func([]byte) (int, error)

func (r reader) Read(b []byte) (int, error) { return r(b) }
