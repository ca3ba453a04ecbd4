package main

import (
	"context"
	"fmt"
)

// A trafficCase is one kind of load on every contender.
type trafficCase struct {
	name    string
	what    string
	clients int
	open    func(*contender) func() (int, client, error)
}

var trafficCases = []trafficCase{
	{"echo-64", "TCP echo, 64 B, 64 connections", 64, onEcho},
	{"echo-1000", "TCP echo, 64 B, 1,000 connections", 1000, onEcho},
	{"http-64", "HTTP GET, keep-alive, 64 connections", 64, onHTTP},
	{"http-1000", "HTTP GET, keep-alive, 1,000 connections", 1000, onHTTP},
	{"udp", "UDP echo, 64 B, 16 sockets x window 8", 16, onUDP},
}

type opener = func() (int, client, error)

func onEcho(c *contender) opener { return checked(c.echo, echoTo) }
func onHTTP(c *contender) opener { return checked(c.http, httpTo) }
func onUDP(c *contender) opener  { return checked(c.udp, udpTo) }

// contenders starts the servers, each with its listeners. The daemon, if
// there is one, is the first.
func (cfg *config) contenders(ctx context.Context, cpus cpuPair) (all []*contender, err error) {
	defer func() {
		if err != nil {
			stopAll(all)
		}
	}()
	if cfg.daemon != "" {
		c, err := startDaemon(cpus, cfg.daemon)
		if err != nil {
			return all, err
		}
		all = append(all, c)
		if err := c.openAll(ctx); err != nil {
			return all, err
		}
	}
	c, err := startNet(cpus)
	if err != nil {
		return all, err
	}
	return append(all, c), nil
}

func stopAll(all []*contender) {
	for _, c := range all {
		c.stop()
	}
}

// traffic runs the cases, round by round in turn, and prints each as it ends.
func (cfg *config) traffic(ctx context.Context, out *report, cpus cpuPair, cases []trafficCase) error {
	all, err := cfg.contenders(ctx, cpus)
	if err != nil {
		return err
	}
	defer stopAll(all)
	out.printf("\nTraffic: median of %d rounds of %v, servers in turn; ratio is the median of the rounds' [least-most]\n\n",
		cfg.rounds, cfg.window)
	printTrafficHead(out)
	for _, tc := range cases {
		results := make([][]sample, len(all))
		for range cfg.rounds {
			for i, c := range all {
				s, err := cfg.round(ctx, tc, c)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", tc.name, c.name, err)
				}
				results[i] = append(results[i], s)
			}
		}
		printTraffic(out, tc, all, results)
	}
	return nil
}

// round measures one case on one contender.
func (cfg *config) round(ctx context.Context, tc trafficCase, c *contender) (sample, error) {
	l, err := newLoad(tc.clients, tc.open(c))
	defer l.close()
	if err != nil {
		return sample{}, err
	}
	return l.measure(ctx, c.proc.pid(), cfg.window)
}
