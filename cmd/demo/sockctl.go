package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// listener is what the demo reads of `sockctl inspect -o json`.
type listener struct {
	Status struct {
		Bound []struct {
			URI  string `json:"uri"`
			IP   string `json:"ip"`
			Port int    `json:"port"`
		} `json:"bound"`
		AcceptQueueLimit int `json:"acceptQueueLimit"`
	} `json:"status"`
}

func (l *listener) uri() string { return l.Status.Bound[0].URI }

// address is uri without its scheme.
func (l *listener) address() string {
	_, address, _ := strings.Cut(l.uri(), "://")
	return address
}

func (l *listener) url() string { return "http://" + l.address() + "/" }

// sockctl shows a command line, runs it, and shows what it prints.
func (d *demo) sockctl(ctx context.Context, args ...string) error {
	d.say("$ sockctl %s", words(args))
	return d.runSockctl(ctx, d.out, args)
}

// inspect shows `sockctl inspect -o json`, and of its many lines those that
// the demo is about.
func (d *demo) inspect(ctx context.Context, name string, fields func(listener) string) (l listener, err error) {
	args := []string{"inspect", name, "-o", "json"}
	d.say("$ sockctl %s", words(args))
	var text bytes.Buffer
	if err := d.runSockctl(ctx, &text, args); err != nil {
		return l, err
	}
	if err := json.Unmarshal(text.Bytes(), &l); err != nil {
		return l, fmt.Errorf("sockctl inspect %s -o json: %w", name, err)
	}
	if len(l.Status.Bound) == 0 {
		return l, fmt.Errorf("%s is not bound", name)
	}
	d.say("  ... %s ...", fields(l))
	return l, nil
}

// failed is a command that did not exit with 0; it has said why itself.
type failed struct {
	args   []string
	exit   int
	stderr string
}

// Error names the command.
func (f *failed) Error() string {
	return fmt.Sprintf("sockctl %s: exit %d", words(f.args), f.exit)
}

func (d *demo) runSockctl(ctx context.Context, out io.Writer, args []string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "sockctl"), args...)
	cmd.Env = append(environment(), "SOCKMGR_ADDR="+d.control)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the demo
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, io.MultiWriter(d.out, &stderr)
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("sockctl %s: not done after %v", words(args), patience)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &failed{args: args, exit: exit.ExitCode(), stderr: stderr.String()}
	}
	return err
}

var plain = regexp.MustCompile(`^[\w@%+=:,./\[\]-]+$`)

// words is args as a shell takes them.
func words(args []string) string {
	quoted := make([]string, 0, len(args))
	for _, arg := range args {
		if !plain.MatchString(arg) {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		quoted = append(quoted, arg)
	}
	return strings.Join(quoted, " ")
}
