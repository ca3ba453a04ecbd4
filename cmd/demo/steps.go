package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"
)

const (
	greeting = "Hello, World"
	// newBacklog is less than any sysctl net.core.somaxconn in use.
	newBacklog = 64
	// cannotNow is the exit code of sockctl for an address in use.
	cannotNow = 7
)

// open makes the three listeners.
func (d *demo) open(ctx context.Context) error {
	d.title("Open three listeners. Nothing is restarted for that.")
	err := d.sockctl(ctx, "start", "web", "--listen", "tcp://127.0.0.1:"+d.port, "--handler", "http", "--body", greeting)
	if f, ok := errors.AsType[*failed](err); ok && f.exit == cannotNow && strings.Contains(f.stderr, "ADDRESS_IN_USE") {
		return fmt.Errorf("port %s is taken, the error above says by whom. Take another one: make demo DEMO_PORT=%d", d.port, d.otherPort())
	}
	if err != nil {
		return err
	}
	for _, network := range []string{"tcp", "udp"} {
		if err := d.sockctl(ctx, "start", network+"-echo", "--listen", network+"://127.0.0.1:0", "--handler", "echo"); err != nil {
			return err
		}
	}
	d.say("\nPort 0 let the kernel choose. Scripts read the choice from JSON:")
	bound := func(l listener) string { return fmt.Sprintf("status.bound[0].uri: %q", l.uri()) }
	for _, network := range []string{"tcp", "udp"} {
		l, err := d.inspect(ctx, network+"-echo", bound)
		if err != nil {
			return err
		}
		d.echoes = append(d.echoes, l)
	}
	return nil
}

// otherPort is one that is worth a try.
func (d *demo) otherPort() int {
	n, err := strconv.Atoi(d.port)
	if err != nil || n >= 65535 {
		return 8081
	}
	return n + 1
}

// talk sends bytes through each listener.
func (d *demo) talk(ctx context.Context) (err error) {
	d.title("Send real bytes through each of them, from this program.")
	if d.web, err = d.inspect(ctx, "web", func(l listener) string {
		return fmt.Sprintf("status.bound[0].uri: %q", l.uri())
	}); err != nil {
		return err
	}
	client, closeAll := newClient()
	defer closeAll()
	if _, err := d.get(ctx, client); err != nil {
		return err
	}
	for i, network := range []string{"tcp", "udp"} {
		if err := d.echo(ctx, network, &d.echoes[i]); err != nil {
			return err
		}
	}
	return nil
}

// newClient returns one that keeps its connection and asks no proxy.
func newClient() (client *http.Client, closeAll func()) {
	transport := &http.Transport{}
	return &http.Client{Transport: transport}, transport.CloseIdleConnections
}

// get asks the web listener for its page and checks it. It tells whether that
// went over a connection that was open before.
func (d *demo) get(ctx context.Context, client *http.Client) (reused bool, err error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.web.url(), http.NoBody)
	if err != nil {
		return false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return false, err
	}
	d.say("  http  sent GET %s  got %s %q", d.web.url(), resp.Status, body)
	if resp.StatusCode != http.StatusOK || string(body) != greeting {
		return false, fmt.Errorf("GET %s: want 200 and %q", d.web.url(), greeting)
	}
	return reused, nil
}

// echo sends a line and wants it back.
func (d *demo) echo(ctx context.Context, network string, l *listener) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, l.address())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost by it
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	sent := "hello over " + strings.ToUpper(network)
	if _, err := io.WriteString(conn, sent); err != nil {
		return err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("%s: nothing came back: %w", l.uri(), err)
	}
	d.say("  %s   sent %q to %s  got %q", network, sent, l.address(), got)
	if string(got) != sent {
		return fmt.Errorf("%s: what came back is not what was sent", l.uri())
	}
	return nil
}

// tune changes the backlog of web under an open connection.
func (d *demo) tune(ctx context.Context) error {
	d.title("Change the backlog of web while a client is connected.")
	client, closeAll := newClient()
	defer closeAll()
	if _, err := d.get(ctx, client); err != nil {
		return err
	}
	limit := func(l listener) string { return fmt.Sprintf("status.acceptQueueLimit: %d", l.Status.AcceptQueueLimit) }
	before, err := d.inspect(ctx, "web", limit)
	if err != nil {
		return err
	}
	if err := d.sockctl(ctx, "tune", "web", fmt.Sprintf("backlog=%d", newBacklog)); err != nil {
		return err
	}
	after, err := d.inspect(ctx, "web", limit)
	if err != nil {
		return err
	}
	was, is := before.Status.AcceptQueueLimit, after.Status.AcceptQueueLimit
	d.say("\nThe kernel's limit of the accept queue was %d and is %d. The same client, on the same connection:", was, is)
	if is != newBacklog || was == is {
		return fmt.Errorf("the backlog in force is %d, and was %d: want it changed to %d", is, was, newBacklog)
	}
	reused, err := d.get(ctx, client)
	if err == nil && !reused {
		err = errors.New("that was a new connection: the old one was lost")
	}
	return err
}

// look prints what there is.
func (d *demo) look(ctx context.Context) error {
	d.title("What there is now.")
	if err := d.sockctl(ctx, "ls"); err != nil {
		return err
	}
	d.say("")
	return d.sockctl(ctx, "inspect", "web")
}
