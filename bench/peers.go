package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"time"
)

// reference is the server that ratios are to. It runs twice: what the second
// differs by is what the machine does, and no smaller difference means anything.
const (
	reference = "go net"
	again     = "go net (A/A)"
)

// mostTries is how often a round is tried in which a machine that is busy with
// other things left no answer, each time for twice as long.
const mostTries = 5

// comparison is what a workload gave.
type comparison struct {
	workload
	names  []string // of the servers, the reference first
	rounds [][]sample
}

// peers runs the workloads, each on every server that is installed, round by round
// in turn.
func (cfg *config) peers(ctx context.Context, out *report, cpus cpuPair) (*results, error) {
	res := newResults(cfg, cpus)
	for _, p := range res.Missing {
		out.printf("no %s here: it is left out (%s)\n", p.Name, p.How)
	}
	out.printf("\nBeside peers: %d rounds of %v, servers in turn; ratios to %s are medians of the rounds'\n", cfg.rounds, cfg.window, reference)
	out.printf("this takes about %v; --cases takes some of the workloads\n", cfg.peersTake(res).Round(time.Minute/2))
	for _, w := range workloads() {
		if !slices.Contains(cfg.cases, w.name) {
			continue
		}
		c, err := cfg.compare(ctx, cpus, w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		table := res.add(c)
		table.print(out)
	}
	return res, nil
}

// peersTake is about how long the workloads take: beside the measured time there is
// the warming up and the opening of connections.
func (cfg *config) peersTake(res *results) (all time.Duration) {
	for _, w := range workloads() {
		if !slices.Contains(cfg.cases, w.name) {
			continue
		}
		servers := 3
		for _, p := range w.programs {
			if !slices.ContainsFunc(res.Missing, func(m missing) bool { return m.Name == p.name }) {
				servers++
			}
		}
		all += time.Duration(cfg.rounds*servers) * (cfg.window + warmUp + 100*time.Millisecond)
	}
	return all
}

// compare runs one workload.
func (cfg *config) compare(ctx context.Context, cpus cpuPair, w workload) (*comparison, error) {
	b, err := openBackend()
	if err != nil {
		return nil, err
	}
	defer b.close()
	all, err := cfg.startAll(ctx, cpus, w, b)
	defer func() { stopAll(all) }()
	if err != nil {
		return nil, err
	}
	c := &comparison{workload: w, rounds: make([][]sample, len(all))}
	for _, s := range all {
		c.names = append(c.names, s.name)
	}
	for range cfg.rounds {
		for i, s := range all {
			got, err := cfg.tryLonger(ctx, w, b, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			c.rounds[i] = append(c.rounds[i], got)
		}
	}
	return c, nil
}

// tryLonger measures one round, in which there is an answer.
func (cfg *config) tryLonger(ctx context.Context, w workload, b *backend, s *contender) (sample, error) {
	got, err := cfg.try(ctx, w, b, s, cfg.window)
	for tries := 1; tries < mostTries && errors.Is(err, errNoAnswer); tries++ {
		got, err = cfg.try(ctx, w, b, s, cfg.window<<tries)
	}
	return got, err
}

// try measures one round of a workload on one server.
func (cfg *config) try(ctx context.Context, w workload, b *backend, s *contender, window time.Duration) (sample, error) {
	l, err := newLoad(0, nil)
	defer l.close()
	if err == nil && w.forwards {
		err = l.serve(b, w.backer)
	}
	if err == nil {
		err = l.open(w.clients, checked(s.at, w.open))
	}
	if err != nil {
		return sample{}, err
	}
	return l.measure(ctx, s.proc.pid(), window)
}

// startAll starts what can take the workload: the reference, the daemon, the
// reference again, and what is installed of the others.
func (cfg *config) startAll(ctx context.Context, cpus cpuPair, w workload, b *backend) (all []*contender, err error) {
	addNet := func(name string) error {
		c, err := startNet(cpus, b.stream.String(), b.datagram.String())
		if err != nil {
			return err
		}
		c.name, c.at = name, w.net(c)
		all = append(all, c)
		return nil
	}
	if err := addNet(reference); err != nil {
		return all, err
	}
	if cfg.daemon != "" {
		c, err := startDaemon(cpus, cfg.daemon)
		if err != nil {
			return all, err
		}
		all = append(all, c)
		if c.at, err = c.open(ctx, "bench", w.uri, w.handler(b)); err != nil {
			return all, err
		}
	}
	if err := addNet(again); err != nil {
		return all, err
	}
	programs := w.programs
	if cfg.reference != "" {
		programs = append([]program{cfg.besideReference(w)}, programs...)
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p.name); err != nil && p.name != referenceName {
			continue // it is among those that are missing
		}
		c, err := p.start(cpus, b)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

// checked refuses to load anything but this machine.
func checked(to netip.AddrPort, open func(netip.AddrPort) opener) opener {
	if !to.Addr().IsLoopback() || !to.Addr().Is4() {
		return func() (int, client, error) { return -1, nil, fmt.Errorf("%v is not in 127.0.0.0/8", to) }
	}
	return open(to)
}
