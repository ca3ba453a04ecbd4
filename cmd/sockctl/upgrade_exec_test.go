//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// echoes is a program that is not ours.
const echoes = `
import os
while True:
    b = os.read(0, 65536)
    if not b:
        break
    while b:
        b = b[os.write(1, b):]
`

func program(command ...string) *pb.Handler {
	return &pb.Handler{Kind: &pb.Handler_Exec{Exec: &pb.ExecHandler{Command: command, KillTimeout: durationpb.New(2 * time.Second)}}}
}

// programsOf are the pids of the programs that serve connections of a listener, by
// the addresses of their clients.
func programsOf(ctx context.Context, t *testing.T, conn *grpc.ClientConn, listener string) map[string]int {
	t.Helper()
	page, err := pb.NewConnectionServiceClient(conn).ListConnections(ctx, &pb.ListConnectionsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	pids := map[string]int{}
	for _, c := range page.GetConnections() {
		if c.GetListener() == "listeners/"+listener {
			pids[c.GetRemote().GetUri()] = int(c.GetProgramPid())
		}
	}
	return pids
}

// ended waits until a process is not there any more, not even as a zombie.
func ended(t *testing.T, pid int) {
	t.Helper()
	waitFor(t, func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
}

// family are the processes of a directory: the supervisor, if there is one, the
// daemons that it has had, and what has ended of their children and was not reaped.
func family(t *testing.T, dir string) (living, zombies []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	parents := map[int]int{}
	var ended []int
	for _, path := range all {
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it is gone
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
		if fields[0] == "Z" {
			ended = append(ended, pid)
			continue
		}
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(command), "unix://"+dir+"/c\x00") {
			living = append(living, pid)
		}
	}
	for _, pid := range ended {
		if slices.Contains(living, parents[pid]) {
			zombies = append(zombies, pid)
		}
	}
	return living, zombies
}

// logs waits until the daemon's log has the words.
func (s *supervised) logs(t *testing.T, words string) {
	t.Helper()
	waitFor(t, func() bool {
		text, err := os.ReadFile(s.log.Name())
		return err == nil && strings.Contains(string(text), words)
	})
}

// Programs go on while the daemon is upgraded again and again: byte for byte, the
// same processes, killed and waited for by a daemon that has not started them, and
// the daemons before have ended. UPGRADES=100 is the long form.
func TestUpgradeMovesPrograms(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIPPED: there is no python3 here")
	}
	for name, start := range map[string]func(*testing.T, string, ...string) *supervised{"alone": alone, "supervised": supervise} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			script := filepath.Join(dir, "server.py")
			if err := os.WriteFile(script, []byte(server), 0o600); err != nil {
				t.Fatal(err)
			}
			s := start(t, dir, "--log-level", "debug", "--exec-allow", "/bin/cat", "--exec-allow", "/bin/sh ...", "--exec-allow", python+" ...")
			conn := s.api(t)
			ctx := t.Context()
			cat := serve(ctx, t, conn, "cat", handled(program("/bin/cat"), "tcp://127.0.0.1:0"))
			theirs := serve(ctx, t, conn, "python", handled(program(python, "-c", echoes), "tcp://127.0.0.1:0"))
			spec := handled(&pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, "tcp://127.0.0.1:0")
			spec.Concurrency = pb.ListenerSpec_CONCURRENCY_PROCESS
			process := serve(ctx, t, conn, "process", spec)
			waits := program(python, script)
			waits.GetExec().PassListener = true
			web := serve(ctx, t, conn, "web", handled(waits, "tcp://127.0.0.1:0"))
			ends := serve(ctx, t, conn, "ends", handled(program("/bin/sh", "-c", "echo ready; read x; echo last words >&2; exit 7"), "tcp://127.0.0.1:0"))
			ignores := serve(ctx, t, conn, "ignores", handled(program("/bin/sh", "-c", "trap '' TERM; echo ready; while :; do read x || sleep 1; done"), "tcp://127.0.0.1:0"))

			var e encounters
			first := greet(t, &e, web)
			ending, stopped := ready(t, ends), ready(t, ignores)
			c := newCrowd(t)
			c.stream(cat, 1, 16<<20)
			c.stream(theirs, 1, 16<<20)
			c.ping("tcp", process, 2, 5*time.Millisecond)
			before := map[string]map[string]int{}
			started := func(l string, n int) {
				waitFor(t, func() bool {
					before[l] = programsOf(ctx, t, conn, l)
					return len(before[l]) == n && !slices.Contains(values(before[l]), 0) // what it says may come before the daemon knows of it
				})
			}
			for l, n := range map[string]int{"cat": 1, "python": 1, "process": 2, "ends": 1, "ignores": 1} {
				started(l, n)
			}
			c.connect(cat, 20*time.Millisecond)
			pid := daemonPid(ctx, t, conn)
			upgrades := fromEnv(t, "UPGRADES", 4)
			for range upgrades {
				if _, err := upgrade(ctx, conn, &pb.UpgradeRequest{}); err != nil {
					t.Fatal(err)
				}
				now := daemonPid(ctx, t, conn)
				if now == pid {
					t.Fatal("it is the same daemon")
				}
				pid = now
				if got := greet(t, &e, web); got != first {
					t.Errorf("the program that has the sockets is %q, was %q", got, first)
				}
				for l, pids := range before {
					now := programsOf(ctx, t, conn, l)
					for client, pid := range pids {
						if now[client] != pid {
							t.Errorf("%s: the program of %s is %d, was %d", l, client, now[client], pid)
						}
					}
				}
				more := c.pings.Load() + 20
				waitFor(t, func() bool { return c.pings.Load() > more || c.failed.Load() > 0 })
			}
			// Nobody but the present daemon is left, and who supervises it.
			waitFor(t, func() bool { living, _ := family(t, dir); return len(living) == 2 })

			_, _ = io.WriteString(ending, "x\n")
			if rest, err := io.ReadAll(ending); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
			s.logs(t, `status="exit status 7"`)
			s.logs(t, `line="last words"`)
			if _, err := pb.NewListenerServiceClient(conn).StopListener(ctx, &pb.StopListenerRequest{Name: "ignores", DrainTimeout: durationpb.New(0)}); err != nil {
				t.Error(err)
			}
			if rest, err := io.ReadAll(stopped); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
			s.logs(t, `status="ended by SIGKILL"`)
			for _, l := range []string{"ends", "ignores"} {
				for _, pid := range before[l] {
					ended(t, pid)
				}
			}
			c.end()
			for _, l := range []string{"cat", "python", "process"} {
				for _, pid := range before[l] {
					ended(t, pid)
				}
			}
			_, zombies := family(t, dir)
			t.Logf("%s: %d upgrades, %d MiB through programs compared; zombies %v", name, upgrades, c.bytes.Load()>>20, zombies)
			if len(zombies) > 0 {
				t.Errorf("zombies %v", zombies)
			}

			// A daemon that is killed loses its programs: the next one ends them.
			last := ready(t, serve(ctx, t, conn, "lost", handled(program("/bin/sh", "-c", "echo ready; read x"), "tcp://127.0.0.1:0")))
			defer last.Close()
			started("lost", 1)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for _, pid := range before["lost"] {
				ended(t, pid)
			}
			waitFor(t, func() bool { return strings.TrimSpace(greet(t, &e, web)) != strings.TrimSpace(first) })
		})
	}
}

func values(m map[string]int) (all []int) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// ready connects to a program, and waits until it says that it is there.
func ready(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return c
}
