package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"time"
)

// upgrade has the daemon replaced by the program of the same path, as an operator
// does. Calls of the control plane may be cut off by that; connections may not.
func (s *supervised) upgrade(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	before, err := s.pid(ctx)
	if err != nil {
		return 0, err
	}
	s.upgrades.Add(1)
	defer s.upgrades.Add(1)
	began := time.Now()
	text, err := exec.CommandContext(ctx, filepath.Join(s.bin, "sockctl"), "daemon", "upgrade", "--addr", "unix://"+s.dir+"/c").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("sockctl daemon upgrade: %w\n%s\n%s", err, text, s.lastWords())
	}
	took := time.Since(began)
	if after, err := s.pid(ctx); err == nil && after == before {
		return 0, fmt.Errorf("sockctl daemon upgrade: it is still pid %d\n%s", after, text)
	}
	return took, nil
}

// canUpgrade tells whether the sockctl that is tried knows how: --bin may be of
// another release.
func (s *supervised) canUpgrade(ctx context.Context) bool {
	text, err := exec.CommandContext(ctx, filepath.Join(s.bin, "sockctl"), "daemon", "upgrade", "--help").Output()
	return err == nil && bytes.Contains(text, []byte("--executable"))
}

// disturb kills and upgrades the daemon now and then until the end of that, and
// waits for the end of it all.
func (w *world) disturb(ctx context.Context, end time.Time) error {
	random := rand.New(rand.NewPCG(w.seed, 4000))
	next := func(every time.Duration) time.Time {
		if every == 0 {
			return end
		}
		return time.Now().Add(every/2 + time.Duration(random.Int64N(int64(every))))
	}
	kill, upgrade := next(w.killEvery), next(w.upgradeEvery)
	for {
		at, name, do := kill, "kill -9", w.daemon.kill
		if upgrade.Before(kill) {
			at, name, do = upgrade, "upgrade", w.daemon.upgrade
		}
		timer := time.NewTimer(time.Until(at))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if !time.Now().Before(end) {
			<-ctx.Done()
			return nil
		}
		took, err := do(context.WithoutCancel(ctx))
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, w.daemon.lastWords())
		}
		w.tally.did(name, took)
		if name == "upgrade" {
			upgrade = next(w.upgradeEvery)
		} else {
			kill = next(w.killEvery)
		}
	}
}
