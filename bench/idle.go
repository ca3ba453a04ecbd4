package main

import (
	"context"
	"fmt"
	"time"
)

const (
	idleCase        = "idle"
	idleConnections = 5000
)

// idle reports what a connection costs in the memory of the server while it
// does nothing, after one echo. Kernel memory is not in it.
func (cfg *config) idle(ctx context.Context, out *report, cpus cpuPair) error {
	all, err := cfg.contenders(ctx, cpus)
	if err != nil {
		return err
	}
	defer stopAll(all)
	out.printf("\nIdle: RSS of the server before and after %d connections, one echo of %d B on each\n\n", idleConnections, echoSize)
	out.printf("  %-9s %12s %12s %16s\n", "server", "before KiB", "after KiB", "bytes/connection")
	for _, c := range all {
		before, after, err := idleRSS(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		out.printf("  %-9s %12d %12d %16d\n", c.name, before>>10, after>>10, (after-before)/idleConnections)
	}
	return nil
}

func idleRSS(ctx context.Context, c *contender) (before, after int64, err error) {
	if before, err = rss(c.proc.pid()); err != nil {
		return 0, 0, err
	}
	l, err := newLoad(idleConnections, onceTo(onEcho(c)))
	defer l.close()
	if err != nil {
		return 0, 0, err
	}
	l.now = clock()
	if err := l.each(func(c client) error { return c.start(l) }); err != nil {
		return 0, 0, err
	}
	done := func() bool { return l.latency.n == idleConnections }
	if err := l.turnUntil(ctx, l.now+int64(30*time.Second), done); err != nil {
		return 0, 0, err
	}
	if !done() {
		return 0, 0, fmt.Errorf("%d of %d connections were answered", l.latency.n, idleConnections)
	}
	after, err = rss(c.proc.pid())
	return before, after, err
}

// onceTo makes the clients of an echo server stop after one answer.
func onceTo(open opener) opener {
	return func() (int, client, error) {
		fd, c, err := open()
		if echo, ok := c.(*echoClient); ok {
			echo.once = true
		}
		return fd, c, err
	}
}
