package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/sockmgr/sockmgr/internal/handover"
	"github.com/sockmgr/sockmgr/internal/shim"
)

// runWithSockets runs a program with the sockets of listeners until it ends.
func (a *app) runWithSockets(_ context.Context, names, command []string) error {
	path := strings.TrimPrefix(a.address(), "unix://")
	if !strings.HasPrefix(path, "/") {
		return usagef("--addr %s: exec needs a daemon on this host, at unix:///PATH", a.address())
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return &failure{exit: exitFailed, message: fmt.Sprintf("%s cannot be run: %v", command[0], err)}
	}
	of, files, _, err := handover.Ask(handover.Path(path), handover.Request{Verb: handover.Take, Names: names})
	if err != nil {
		return notGiven(a.address(), err)
	}
	// Asked for before the program is there: it misses none.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	pid, err := startWith(program, command, of, files)
	for _, fd := range files {
		_ = unix.Close(fd) // the program has them
	}
	if err != nil {
		return &failure{exit: exitFailed, message: fmt.Sprintf("%s cannot be run: %v", program, err)}
	}
	return a.attend(pid, signals)
}

func startWith(program string, argv, of []string, files []int) (pid int, err error) {
	env := slices.DeleteFunc(os.Environ(), func(pair string) bool {
		return strings.HasPrefix(pair, "LISTEN_") || strings.HasPrefix(pair, "NOTIFY_SOCKET=")
	})
	env = append(env, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+strings.Join(of, ":"))
	all := []uintptr{0, 1, 2}
	for _, fd := range files {
		all = append(all, uintptr(fd))
	}
	self, wrapped := shim.Wrap(program, argv)
	return syscall.ForkExec(self, wrapped, &syscall.ProcAttr{Env: env, Files: all})
}

// attend passes signals on until the program ends.
func (a *app) attend(pid int, signals <-chan os.Signal) error {
	ended := make(chan unix.WaitStatus, 1)
	go func() {
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		ended <- status
	}()
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGINT && a.env.IsTerminal {
				continue // the terminal has told it
			}
			if number, ok := sig.(syscall.Signal); ok {
				_ = unix.Kill(pid, number) // it ends just now, perhaps
			}
		case status := <-ended:
			code := status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
			if code == 0 {
				return nil
			}
			return &failure{exit: code, message: fmt.Sprintf("exit code %d", code), shown: true}
		}
	}
}

// notGiven explains why there are no sockets.
func notGiven(addr string, err error) error {
	refused, ok := errors.AsType[*handover.Error](err)
	switch {
	case !ok && errors.Is(err, fs.ErrPermission):
		return failf(codes.PermissionDenied, "not allowed to open %s.fd: be root, the daemon's own user, or in its control group", addr)
	case !ok && (errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)):
		return failf(codes.Unavailable, "no daemon gives sockets at %s (%v)", addr, err)
	case !ok:
		return &failure{exit: exitFailed, message: fmt.Sprintf("the daemon at %s did not give its sockets: %v", addr, err)}
	}
	f := &failure{exit: exitCannotNow, code: codes.FailedPrecondition, reason: refused.Reason, message: refused.Message}
	switch refused.Reason {
	case "LISTENER_NOT_FOUND":
		f.exit, f.code = exitNotFound, codes.NotFound
	case "ROLE_MISSING", "POLICY_DENIED":
		f.exit, f.code = exitNotAllowed, codes.PermissionDenied
	case "SPEC_INVALID":
		f.exit, f.code = exitUsage, codes.InvalidArgument
	}
	return f
}
