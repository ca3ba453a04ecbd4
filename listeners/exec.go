package listeners

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Exec runs a program: one for each connection, which has it as its standard
// input and output (inetd's nowait), or one for the listening sockets, which
// accepts by itself (inetd's wait, systemd's Accept=no).
type Exec struct {
	Command      []string          `json:"command"` // the program's path or name, see Programs, and its arguments
	Environment  map[string]string `json:"environment,omitempty"`
	Directory    string            `json:"directory,omitempty"`     // empty: /
	User         string            `json:"user,omitempty"`          // name or number; empty: the daemon's
	PassListener bool              `json:"pass_listener,omitempty"` // the listening sockets, not connections
	KillTimeout  time.Duration     `json:"kill_timeout,omitempty"`  // from SIGTERM to SIGKILL; 0: defaultKill
}

const (
	defaultKill = 5 * time.Second
	maxKill     = time.Hour
	maxCommand  = 64 << 10 // bytes of command and environment together
)

// Kind is HandlerSpec.Kind.
func (*Exec) Kind() string { return "exec" }

// Datagram is HandlerSpec.Datagram: only who has the socket itself can receive.
func (e *Exec) Datagram() bool { return e.PassListener }

// New is HandlerSpec.New.
func (e *Exec) New() Handler { return &executor{spec: e} }

// Program is the path or the name of what is run.
func (e *Exec) Program() string { return e.Command[0] }

func (e *Exec) killTimeout() time.Duration {
	if e.KillTimeout == 0 {
		return defaultKill
	}
	return e.KillTimeout
}

// Validate is HandlerSpec.Validate. It looks at no file: see Runnable.
func (e *Exec) Validate() error {
	var faults []error
	bad := func(field, format string, args ...any) {
		faults = append(faults, &Violation{Field: "spec.handler.exec." + field, Message: fmt.Sprintf(format, args...)})
	}
	size := 0
	for i, arg := range e.Command {
		size += len(arg) + 1
		if !isText(arg) {
			bad(fmt.Sprintf("command[%d]", i), "must be UTF-8 without a zero byte")
		}
	}
	switch {
	case len(e.Command) == 0:
		bad("command", "is missing: the program's absolute path, and its arguments")
	case !programName.MatchString(e.Program()) && (!path.IsAbs(e.Program()) || path.Clean(e.Program()) != e.Program()):
		bad("command[0]", "%.80q is not the absolute path of a program, such as /usr/bin/cat, nor a name of exec-allow", e.Program())
	}
	for name, value := range e.Environment {
		size += len(name) + len(value) + 2
		if name == "" || strings.ContainsRune(name, '=') || !isText(name) || !isText(value) {
			bad("environment", "%.80q cannot be a variable: a name that is not empty and has no =, and UTF-8 without a zero byte", name)
		}
		if isOurs(name) {
			bad("environment", "%s is for the daemon to set", name)
		}
	}
	if size > maxCommand {
		bad("command", "has %d bytes with the environment; at most %d", size, maxCommand)
	}
	if e.Directory != "" && (!path.IsAbs(e.Directory) || !isText(e.Directory)) {
		bad("directory", "%.80q is not an absolute path", e.Directory)
	}
	if !isText(e.User) || strings.ContainsAny(e.User, ":\n") {
		bad("user", "%.80q is not the name or number of a user", e.User)
	}
	if e.KillTimeout < 0 || e.KillTimeout > maxKill {
		bad("kill_timeout", "must be from 0s to 1h")
	}
	return errors.Join(faults...)
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// Runnable finds out whether the program could be started now, as far as that
// can be told without starting it. It looks at files: never call it on the
// loop.
func (e *Exec) Runnable() error {
	var faults []error
	bad := func(field string, why error) {
		faults = append(faults, &Violation{Field: "spec.handler.exec." + field, Message: why.Error()})
	}
	if err := executable(e.Program()); err != nil {
		bad("command[0]", err)
	}
	if e.Directory != "" {
		if st, err := os.Stat(e.Directory); err != nil {
			bad("directory", err)
		} else if !st.IsDir() {
			bad("directory", fmt.Errorf("%s is not a directory", e.Directory))
		}
	}
	if _, err := accountOf(e.User); err != nil {
		if _, ok := errors.AsType[*Fault](err); ok {
			return err
		}
		bad("user", err)
	}
	return errors.Join(faults...)
}

// executable says why a program cannot be run.
func executable(name string) error {
	st, err := os.Stat(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("there is no program %s", name)
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a program", name)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, name, unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s is not executable: chmod +x", name)
	}
	return nil
}

// A Runner is a HandlerSpec that needs something of the host, which may come
// and go.
type Runner interface {
	Runnable() error
}
