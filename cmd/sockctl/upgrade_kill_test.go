//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A talk is a connection that was there before an upgrade, over which a number
// goes out and comes back again and again.
type talk struct {
	name  string
	conn  net.Conn
	stop  chan struct{}
	ended chan error
}

var errOtherBytes = errors.New("another number came back")

func startTalk(t *testing.T, name, address string) *talk {
	t.Helper()
	c := ask(t, address)
	answered(t, c)
	k := &talk{name, c, make(chan struct{}), make(chan error, 1)}
	go func() {
		var out, in [8]byte
		for i := uint64(1); ; i++ {
			select {
			case <-k.stop:
				k.ended <- c.Close()
				return
			default:
			}
			binary.BigEndian.PutUint64(out[:], i)
			_, err := c.Write(out[:])
			if err == nil {
				_, err = io.ReadFull(c, in[:])
			}
			if err == nil && in != out {
				err = errOtherBytes
			}
			if err != nil {
				k.ended <- err
				return
			}
		}
	}()
	return k
}

// killers are the points at which one of the two is killed: at its nth call of a
// kind (of one thread, as strace counts). The new process is started by strace.
func killers(t *testing.T) (all []string) {
	t.Helper()
	most := fromEnv(t, "UPGRADE_KILL_CALLS", 0)
	if most == 0 {
		return []string{"old sendmsg 1", "old sendmsg 3", "old recvmsg 2", "old memfd_create 2", "new sendmsg 2", "new recvmsg 3", "new sendmsg 4"}
	}
	for _, call := range []string{ // the old one makes others when there is no upgrade too
		"old sendmsg", "old recvmsg", "old memfd_create", "new sendmsg", "new recvmsg", "new close", "new fcntl", "new epoll_ctl", "new write", "new openat",
	} {
		for n := range most {
			all = append(all, fmt.Sprintf("%s %d", call, n+1))
		}
	}
	return all
}

var servesPid = regexp.MustCompile(`pid (\d+)(?: had taken over, which)? serves`)

// kill -9 of the old process, or of the new one, at any call in the middle of an
// upgrade: whoever has the connections then, if it lives, has them whole; nobody
// who connects is refused; one daemon serves afterwards, and what sockctl says of
// it is true. UPGRADE_KILL_CALLS=12 tries 120 points.
func TestKillInTheMiddleOfAnUpgrade(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("there is no strace (apt-get install strace)")
	}
	dir := t.TempDir()
	s := supervise(t, dir, "--log-level", "info")
	conn := s.api(t)
	ctx := t.Context()
	up := echoUpstream(t)
	addresses := []string{
		serve(ctx, t, conn, "echo", handled(&pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, "tcp://127.0.0.1:0")),
		serve(ctx, t, conn, "forward", handled(&pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{Upstreams: []*pb.Upstream{{Address: up}}}}}, "tcp://127.0.0.1:0")),
	}
	var met encounters
	busy, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	clients.Go(func() { met.clients(busy, addresses, 100) })
	outcomes := map[string]int{}
	for _, point := range killers(t) {
		outcome := killAt(t, dir, point, addresses)
		outcomes[outcome]++
		t.Logf("%s: %s", point, outcome)
	}
	stop()
	clients.Wait()
	t.Logf("%v; %d connects meanwhile, %d failed", outcomes, met.connects.Load(), met.failed.Load())
	if met.failed.Load() > 0 {
		t.Errorf("clients failed: %v", met.why)
	}
	pid := daemonPid(ctx, t, conn) // strace may be at it still
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return daemonPid(ctx, t, conn) != pid })
	waitFor(t, func() bool { return len(childrenOf(t, s.cmd.Process.Pid)) == 1 })
}

func killAt(t *testing.T, dir, point string, addresses []string) (outcome string) {
	t.Helper()
	conn := (&supervised{dir: dir}).api(t)
	defer conn.Close()
	ctx := t.Context()
	before := daemonPid(ctx, t, conn)
	var talks []*talk
	for i, address := range addresses {
		talks = append(talks, startTalk(t, fmt.Sprintf("%s, listener %d", point, i), address))
	}
	who, call, _ := strings.Cut(point, " ")
	call, n, _ := strings.Cut(call, " ")
	args, end := []string{"daemon", "upgrade"}, func() {}
	fault := call + ":signal=KILL:when=" + n
	if who == "old" {
		end = inject(t, before, fault)
	} else {
		program, err := exec.LookPath("sockmgr")
		if err != nil {
			t.Fatal(err)
		}
		script := filepath.Join(dir, "heir")
		text := fmt.Sprintf("#!/bin/sh\nexec strace -D -f -o /dev/null -e trace=%s -e inject=%s %s \"$@\"\n", call, fault, program)
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--executable", script)
	}
	out, code := sockctl(t, dir, args...)
	end()
	now := daemonPid(ctx, t, conn)
	serves := 0
	if m := servesPid.FindStringSubmatch(out); m != nil {
		serves, _ = strconv.Atoi(m[1])
	}
	third := now != before && now != serves
	switch {
	case code == 0 && (serves == 0 || now == before), code != 0 && strings.Contains(out, "the daemon goes on as before") && now != before,
		code != 0 && !strings.Contains(out, "Error: "), strings.Contains(out, "was started in its place") && !strings.Contains(out, fmt.Sprintf("pid %d (version", now)):
		t.Errorf("%s: pid %d, now %d; sockctl ends with %d and says:\n%s", point, before, now, code, out)
	}
	for _, k := range talks {
		close(k.stop)
		if third {
			_ = k.conn.SetDeadline(time.Now().Add(time.Second)) // it is gone with the one that had it
		}
		if err := <-k.ended; errors.Is(err, errOtherBytes) || err != nil && !third {
			t.Errorf("%s: pid %d, now %d: a connection that was there before: %v; sockctl said:\n%s", k.name, before, now, err, out)
		}
	}
	for _, address := range addresses {
		gap(t, time.Now(), address)
	}
	switch {
	case now == before:
		return "the old one goes on"
	case !third:
		return "the new one serves"
	}
	return "a third one was started"
}

// SIGTERM at any moment of an upgrade, to whoever was started or to the daemon: all
// of it ends, well, and leaves nothing behind. UPGRADE_ENDS=50 is the long form.
func TestEndInTheMiddleOfAnUpgrade(t *testing.T) {
	dir := t.TempDir()
	var late atomic.Int64
	ends := fromEnv(t, "UPGRADE_ENDS", 6)
	ways := []string{"alone", "supervised", "supervised, to the daemon"}
	for i := range ends {
		way := ways[i%len(ways)]
		log, err := os.Create(filepath.Join(dir, "ends.log"))
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"--control", "unix://" + dir + "/c", "--state", dir + "/state", "--log-level", "info"}
		if way != "alone" {
			args = append([]string{"supervise"}, args...)
		}
		cmd := exec.Command("sockmgr", args...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		conn := (&supervised{dir: dir}).api(t)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		pid := daemonPid(ctx, t, conn)
		if i == 0 {
			makeListener(ctx, t, conn, "web", 0, "tcp://127.0.0.1:0")
		}
		said := make(chan error, 1)
		go func() {
			_, err := upgrade(ctx, conn, &pb.UpgradeRequest{})
			said <- err
		}()
		delay := time.NewTimer(rand.N(150 * time.Millisecond)) // with the race detector it takes about as long
		<-delay.C
		to := cmd.Process.Pid
		if way == "supervised, to the daemon" {
			to = pid
		}
		if err := syscall.Kill(to, syscall.SIGTERM); err != nil && to == cmd.Process.Pid {
			t.Fatal(err)
		} else if err != nil { // the daemon has handed over and ended before
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		waited := make(chan error, 1)
		go func() { waited <- cmd.Wait() }()
		unheard := time.AfterFunc(2*time.Second, func() {
			if to == pid { // it had handed over and was at its last instructions: a signal to a process that ends is lost
				late.Add(1)
				_ = cmd.Process.Signal(syscall.SIGTERM)
			}
		})
		select {
		case err = <-waited:
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			err = errors.Join(errors.New("it does not end"), <-waited)
		}
		unheard.Stop()
		cancel()
		_ = conn.Close()
		answer := <-said
		text, errRead := os.ReadFile(log.Name())
		_ = log.Close()
		left := processesOf(t, dir)
		_, errPath := os.Lstat(dir + "/c")
		if err != nil || errRead != nil || len(left) > 0 || !os.IsNotExist(errPath) || strings.Contains(fmt.Sprint(answer, string(text)), "goes on as before") {
			t.Fatalf("%s: it ended with %v; left are %v, and the path: %v; the upgrade: %v\n%s", way, err, left, errPath, answer, text)
		}
	}
	t.Logf("%d ends, %d signals came too late for the process that they were sent to", ends, late.Load())
	if late.Load() > int64(2+ends/10) {
		t.Error("too many")
	}
}

// processesOf are those whose command line has the directory, this one left out.
func processesOf(t *testing.T, dir string) (all []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), dir+"/") && file != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) {
			all = append(all, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return all
}
