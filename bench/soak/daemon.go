package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// patience is how long anything may take.
const patience = 20 * time.Second

// supervised is a supervisor, and the daemon that it has now.
type supervised struct {
	dir    string
	bin    string
	cmd    *exec.Cmd
	log    *os.File
	conn   *grpc.ClientConn
	exited chan struct{}
	err    error // how; set before

	kills, upgrades atomic.Int64 // begun and ended: odd while one goes on
}

// startDaemon starts sockmgr supervise, and returns when a daemon answers.
func startDaemon(ctx context.Context, bin, dir string) (*supervised, error) {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	s := &supervised{dir: dir, bin: bin, log: log, exited: make(chan struct{})}
	s.cmd = exec.Command(filepath.Join(bin, "sockmgr"), "supervise", "--control", "unix://"+dir+"/c", "--state", dir+"/state", "--log-level", "warn")
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the soak, which ends the daemon in order
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "SOCKMGR_") && !strings.HasPrefix(pair, "NOTIFY_SOCKET=") {
			s.cmd.Env = append(s.cmd.Env, pair)
		}
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	if s.conn, err = grpc.NewClient("unix://"+dir+"/c", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true))); err == nil {
		_, err = s.pid(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the daemon is not ready: %w\n%s", err, s.lastWords()), s.stop())
	}
	return s, nil
}

// stop ends it, and says what was wrong with its end or its log.
func (s *supervised) stop() error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // does not wait for connections
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var err error
	select {
	case <-s.exited:
		err = s.err
	case <-timer.C:
		_ = s.cmd.Process.Kill()
		<-s.exited
		err = fmt.Errorf("it did not end within %v of SIGTERM", patience)
	}
	text, errRead := os.ReadFile(s.log.Name())
	for _, word := range []string{"DATA RACE", "panic", "goroutine ", "fatal error"} {
		if at := bytes.Index(text, []byte(word)); at >= 0 {
			err = errors.Join(err, fmt.Errorf("the log has %q:\n%.4000s", word, text[max(0, at-200):]))
		}
	}
	return errors.Join(err, errRead, s.log.Close())
}

func (s *supervised) lastWords() string {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// pid asks the daemon for its own.
func (s *supervised) pid(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	info, err := sockmgrv1.NewDaemonServiceClient(s.conn).GetDaemonInfo(ctx, &sockmgrv1.GetDaemonInfoRequest{})
	return int(info.GetInfo().GetPid()), err
}

// kill kills the daemon, if it is a child of our supervisor, and returns how
// long it took until the next one answered.
func (s *supervised) kill(ctx context.Context) (time.Duration, error) {
	pid, err := s.pid(ctx)
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 || fields[1] != strconv.Itoa(s.cmd.Process.Pid) {
		return 0, fmt.Errorf("the daemon (pid %d) is no child of our supervisor (pid %d)", pid, s.cmd.Process.Pid)
	}
	s.kills.Add(1)
	began := time.Now()
	err = syscall.Kill(pid, syscall.SIGKILL)
	defer s.kills.Add(1)
	for next := pid; err == nil && next == pid; { // until the other one answers
		next, err = s.pid(ctx)
		if status.Code(err) == codes.Unavailable && time.Since(began) < patience {
			next, err = pid, nil // it was the connection to the one that is gone
		}
	}
	return time.Since(began), err
}

// A moment tells later whether there was a kill, or an upgrade, meanwhile.
type moment struct{ kills, upgrades int64 }

func (s *supervised) moment() moment { return moment{s.kills.Load(), s.upgrades.Load()} }

func (s *supervised) killedSince(m moment) bool { return m.kills%2 == 1 || s.kills.Load() != m.kills }

// cutSince reports whether calls of the control plane may have been cut off.
func (s *supervised) cutSince(m moment) bool {
	return s.killedSince(m) || m.upgrades%2 == 1 || s.upgrades.Load() != m.upgrades
}
