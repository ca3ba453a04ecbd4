// Package docs tests that what the documentation shows is what happens.
//
// TestConsole runs every block of README.md and docs/*.md that is marked
// "console". The blocks of a page are one session of bash at the top of the
// repository, with sockmgr and sockctl in PATH. A line that begins with "$ "
// is a command, and what follows is what it must print:
//
//   - A line "..." stands for any lines, and ... in a line for any text.
//   - Runs of spaces count as one.
//   - What is another thing each time is not compared: the columns and keys in
//     volatile, times, pids, uuids, and ports that the kernel chose.
//   - A command may fail only if what it must print has "Error:" in it, or the
//     next command is "echo $?".
//
// What would not stand several runs at once is replaced on the way in and back
// on the way out, and a page need not know of it: ports by free ones, /tmp/try
// by a directory of its own, and the default places of control socket and
// state by others, through the environment.
package docs

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/cmd/sockctl/cli"
	"github.com/sockmgr/sockmgr/cmd/sockmgr/daemon"
)

// patience bounds each command.
const patience = 30 * time.Second

// What the pages may take for granted.
const (
	shownDir     = "/tmp/try"
	shownControl = "/run/user/1000/sockmgr/control.sock"
	shownState   = "/home/me/.local/state/sockmgr"
)

// tools are those that may be missing: commands with them only look, and are
// skipped one by one.
var tools = []string{"curl", "grpcurl", "jq", "openssl", "ss"}

// pythons may have grpc: Debian's package of it is for Debian's own.
var pythons = []string{"/usr/bin/python3", "python3"}

// programs is a directory with sockmgr and sockctl. Set once in TestMain.
var programs string

// The test binary is both programs too, so that the race detector sees them.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "sockmgr":
		os.Exit(daemon.Main(os.Args[1:], os.Stdout, os.Stderr)) //nolint:forbidigo // it is the main of sockmgr
	case "sockctl":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		context.AfterFunc(ctx, stop)
		os.Exit(cli.Run(ctx, cli.Env{ //nolint:forbidigo // it is the main of sockctl
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Now: time.Now, UID: os.Getuid(),
		}, os.Args[1:]))
	}
	dir, err := os.MkdirTemp("", "docs-test-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	programs = dir
	self, err := os.Executable()
	for _, name := range []string{"sockmgr", "sockctl"} {
		err = errors.Join(err, os.Symlink(self, filepath.Join(dir, name)))
	}
	if err != nil {
		log.Panic(err)
	}
	m.Run()
}

// pages are all pages with the top of the repository as root.
func pages(t *testing.T) []string {
	t.Helper()
	more, err := filepath.Glob("*.md")
	if err != nil || len(more) == 0 {
		t.Fatal("no pages", err)
	}
	return append([]string{"../README.md", "../clients/python/README.md"}, more...)
}

func TestConsole(t *testing.T) {
	for _, page := range pages(t) {
		all := commands(t, page)
		if len(all) == 0 {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		ofPython := filepath.Base(filepath.Dir(page)) == "python"
		if ofPython {
			name = "python"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if ofPython && !havePython() {
				t.Skip("SKIPPED, the page is not checked: no python3 here has grpc (apt-get install python3-grpcio)")
			}
			if _, err := exec.LookPath("bash"); err != nil {
				t.Skip("SKIPPED, the page is not checked: there is no bash here")
			}
			s := begin(t, all)
			for i, c := range all {
				if tool := missing(c.line); tool != "" {
					t.Logf("%s: SKIPPED: there is no %s here", c.at, tool)
					continue
				}
				mayFail := strings.Contains(c.want, "Error:") || i+1 < len(all) && strings.HasPrefix(all[i+1].line, "echo $?")
				if !s.run(c, mayFail) {
					t.FailNow() // what follows builds on it
				}
			}
		})
	}
}

// command is one command of a page and what it must print.
type command struct {
	at   string // page:line
	line string
	want string
}

// commands returns those of all console blocks. A command goes on in the next
// line after a backslash.
func commands(t *testing.T, page string) (all []command) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	inside, goesOn := false, false
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		prompt, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.TrimSpace(line) == "```console"
		case !inside:
		case isCommand:
			all = append(all, command{at: fmt.Sprintf("%s:%d", page, n), line: prompt})
		case len(all) == 0:
			t.Fatalf("%s:%d: a console block must begin with a command", page, n)
		case goesOn:
			all[len(all)-1].line += line
		default:
			all[len(all)-1].want += line
		}
		goesOn = inside && (isCommand || goesOn) && strings.HasSuffix(line, "\\\n")
	}
	return all
}

// havePython reports whether a python3 has grpc, and puts it in front of others.
func havePython() bool {
	for _, name := range pythons {
		path, err := exec.LookPath(name)
		if err == nil && exec.Command(path, "-c", "import grpc, google.protobuf").Run() == nil {
			return os.Symlink(path, filepath.Join(programs, "python3")) == nil
		}
	}
	return false
}

// missing returns a tool that a command needs and that is not here.
func missing(line string) string {
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil && regexp.MustCompile(`(^|\| )`+tool+` `).MatchString(line) {
			return tool
		}
	}
	return ""
}
