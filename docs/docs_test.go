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
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

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

// tools are those that may be missing: a page that needs one is skipped then.
var tools = []string{"bash", "curl", "ss", "jq"}

// onlookers may be missing too: they only look, and each is skipped by itself.
var onlookers = []string{"grpcurl"}

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
	return append([]string{"../README.md"}, more...)
}

func TestConsole(t *testing.T) {
	for _, page := range pages(t) {
		all := commands(t, page)
		if len(all) == 0 {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			needTools(t, all)
			s := begin(t, all)
			for i, c := range all {
				if name, _, _ := strings.Cut(c.line, " "); slices.Contains(onlookers, name) {
					if _, err := exec.LookPath(name); err != nil {
						t.Logf("%s: SKIPPED: there is no %s here", c.at, name)
						continue
					}
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

func needTools(t *testing.T, all []command) {
	t.Helper()
	for _, tool := range tools {
		word := regexp.MustCompile(`(^|[|&;(]\s*)` + tool + `\b`)
		needed := tool == "bash" || slices.ContainsFunc(all, func(c command) bool { return word.MatchString(c.line) })
		if _, err := exec.LookPath(tool); needed && err != nil {
			t.Skipf("SKIPPED, the page is not checked: there is no %s here", tool)
		}
	}
}

// session is a shell that runs the commands of one page.
type session struct {
	t        *testing.T
	in       io.Writer
	out      chan string // what it printed, piece by piece
	printed  strings.Builder
	status   int
	there    *strings.Replacer // what the page says, as it is here
	andBack  *strings.Replacer
	commands int
	dir      string
}

// shell runs files whose names it reads from descriptor 3, keeps $? from one to
// the next, and prints a mark and $? after each.
const shell = `while read -r -u 9 file; do (exit $status); . "$file" </dev/null; status=$?; printf '\1%s\1' $status; done`

func begin(t *testing.T, all []command) *session {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "docs-") //nolint:usetesting // short: the path of a Unix socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	names, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, in: in, out: make(chan string), dir: dir}
	s.replace(all)
	cmd := exec.Command("bash", "--norc", "--noprofile", "-c", "exec 9<&3 3<&-; "+shell)
	cmd.Dir = ".."
	cmd.ExtraFiles = []*os.File{names}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "NO_COLOR=1", "GORACE=atexit_sleep_ms=0",
		"SOCKMGR_CONTROL=unix://"+dir+"/default.sock", "SOCKMGR_STATE="+dir+"/default", "SOCKMGR_ADDR=unix://"+dir+"/default.sock")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	names.Close()
	go s.read(out)
	t.Cleanup(func() {
		in.Close()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group is the shell and all it has started
		for range s.out {                               // ends when the last of them has
		}
		cmd.Wait()
		os.RemoveAll(dir)
	})
	return s
}

// read hands on what the shell prints.
func (s *session) read(out io.Reader) {
	defer close(s.out)
	for r := bufio.NewReader(out); ; {
		buf := make([]byte, 64<<10)
		n, err := r.Read(buf)
		if n > 0 {
			s.out <- string(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

var portInCommand = regexp.MustCompile(`[:/](\d{4,5})\b`)

// replace makes the replacers of this run.
func (s *session) replace(all []command) {
	s.t.Helper()
	ports := map[string]string{}
	for _, c := range all {
		for _, m := range portInCommand.FindAllStringSubmatch(c.line, -1) {
			if ports[m[1]] == "" {
				ports[m[1]] = freePort(s.t)
			}
		}
	}
	there := []string{shownDir, s.dir}
	back := []string{s.dir + "/default.sock", shownControl, s.dir + "/default", shownState, s.dir, shownDir}
	for _, shown := range slices.Sorted(maps.Keys(ports)) {
		for _, before := range []string{":", "/"} {
			there = append(there, before+shown, before+ports[shown])
			back = append(back, before+ports[shown], before+shown)
		}
	}
	s.there, s.andBack = strings.NewReplacer(there...), strings.NewReplacer(back...)
}

// lastPort is the last that freePort has looked at.
var lastPort atomic.Int32

// freePort is free for TCP and UDP, below those that the kernel gives to
// whoever asks for port 0, and given out once.
func freePort(t *testing.T) string {
	t.Helper()
	lastPort.CompareAndSwap(0, int32(20000+os.Getpid()%10000))
	for {
		port := lastPort.Add(1)
		if port >= 32768 {
			t.Fatal("no free port")
		}
		address := fmt.Sprintf(":%d", port)
		l, errTCP := net.Listen("tcp", address)
		if errTCP == nil {
			l.Close()
		}
		p, errUDP := net.ListenPacket("udp", address)
		if errUDP == nil {
			p.Close()
		}
		if errTCP == nil && errUDP == nil {
			return strings.TrimPrefix(address, ":")
		}
	}
}

// run runs one command and compares.
func (s *session) run(c command, mayFail bool) (ok bool) {
	s.t.Helper()
	s.commands++
	file := filepath.Join(s.dir, fmt.Sprintf("command-%d", s.commands))
	if err := os.WriteFile(file, []byte(s.there.Replace(c.line)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintln(s.in, file); err != nil {
		s.t.Fatal(err)
	}
	want := pattern(c.want)
	matches := func() bool { return want.MatchString(plain(s.andBack.Replace(s.printed.String()))) }
	s.printed.Reset()
	inBackground := strings.HasSuffix(strings.TrimSpace(c.line), "&")
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for marked := false; !marked || inBackground && !matches(); {
		select {
		case text, open := <-s.out:
			if !open {
				s.t.Fatalf("%s: $ %sthe shell ended", c.at, c.line)
			}
			marked = s.take(text) || marked
		case <-timer.C:
			s.t.Errorf("%s: $ %snot done after %v; printed so far:\n%s", c.at, c.line, patience, s.printed.String())
			return false
		}
	}
	if s.status != 0 && !mayFail {
		s.t.Errorf("%s: $ %sexit %d:\n%s", c.at, c.line, s.status, s.printed.String())
		return false
	}
	if !matches() {
		s.t.Errorf("%s: $ %s--- the page says\n%s--- it is\n%s", c.at, c.line, c.want, s.andBack.Replace(s.printed.String()))
		return false
	}
	return true
}

var marked = regexp.MustCompile("\x01(\\d+)\x01")

// take adds what was printed. It reports whether that was the end.
func (s *session) take(text string) bool {
	s.printed.WriteString(text)
	m := marked.FindStringSubmatch(s.printed.String())
	if m == nil {
		return false
	}
	rest := strings.Replace(s.printed.String(), m[0], "", 1)
	s.printed.Reset()
	s.printed.WriteString(rest)
	s.status, _ = strconv.Atoi(m[1])
	return true
}

// volatile are the columns of tables, and the keys of inspect, whose values are
// other ones each time.
var volatile = []string{
	"AGE", "IDLE", "ID", "FD", "COOKIE", "UID", "IN", "OUT",
	"pid", "uid", "cookie", "inode", "descriptor (fileno)", "started", "instance", "host", "kernel", "go", "commit",
	"age", "idle", "rtt", "open files limit",
}

var changing = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT`), "DATE"},
	{regexp.MustCompile(`\(\w+ ago\)`), "(AGE ago)"},
	{regexp.MustCompile(`\bpid[ =]\d+`), "pid N"},
	{regexp.MustCompile(`\buid[ :]\d+`), "uid N"},
	{regexp.MustCompile(`(?m)^(socket|connection) [0-9a-f]+$`), "$1 ID"},
	{regexp.MustCompile(`:(3[3-9]|[45]\d|6[0-5])\d{3}\b`), ":PORT"},
	{regexp.MustCompile(`[ \t\r]+`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
}

var gaps = regexp.MustCompile(`\s{2,}`)

// plain takes out of a text what is not compared.
func plain(text string) string {
	var head []string
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		cells := gaps.Split(strings.TrimSpace(line), -1)
		switch {
		case len(cells) > 2 && strings.ToUpper(line) == line && strings.ContainsAny(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
			head = cells
		case len(cells) == len(head):
			for j := range cells {
				if slices.Contains(volatile, head[j]) {
					cells[j] = "*"
				}
			}
			lines[i] = strings.Join(cells, " ")
		case len(cells) == 2 && slices.Contains(volatile, cells[0]):
			lines[i] = " " + cells[0] + " *"
		default:
			head = nil
		}
	}
	text = strings.Join(lines, "\n")
	for _, c := range changing {
		text = c.what.ReplaceAllString(text, c.with)
	}
	return text
}

// pattern returns what a text must match to be what the page says.
func pattern(want string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for i, line := range strings.Split(plain(want), "\n") {
		switch {
		case line == "...":
			b.WriteString(`(?:\n?.*)*`)
			continue
		case i > 0:
			b.WriteString(`\n?`)
		}
		b.WriteString(`(?m:^)` + strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`) + `(?m:$)`)
	}
	b.WriteString(`\n*\z`)
	return regexp.MustCompile(b.String())
}

func TestPattern(t *testing.T) {
	tests := []struct {
		want, printed string
		match         bool
	}{
		{"", "", true},
		{"", "text", false},
		{"web   running tcp://127.0.0.1:8080", "web running  tcp://127.0.0.1:8080\n", true},
		{"web running tcp://127.0.0.1:8080", "web running tcp://127.0.0.1:8081", false},
		{"echo running tcp://127.0.0.1:40001", "echo running tcp://127.0.0.1:51234", true},
		{"a\n...\nz", "a\nb\nc\nz", true},
		{"a\n...\nz", "a\nz", true},
		{"a\n...\nz", "a\nb\nyz", false},
		{"...\nz", "y\nz", true},
		{"a\nb", "a\nb\nc", false},
		{"a\nb", "ab", false},
		{"held by ... (pid 812)", "held by nginx (pid 9)", true},
		{"NAME  STATE  AGE\nweb  up  1s", "NAME  STATE  AGE\nweb  up  44m", true},
		{"NAME  STATE  AGE\nweb  up  1s", "NAME  STATE  AGE\nweb  down  1s", false},
		{"  inode  12\n  state  up", "  inode  7\n  state  up", true},
	}
	for _, test := range tests {
		if got := pattern(test.want).MatchString(plain(test.printed)); got != test.match {
			t.Errorf("page %q, printed %q: match is %v", test.want, test.printed, got)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// TestLinks follows every link that stays in the repository.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(t, target), anchor) {
				t.Errorf("%s: link to %s: no such heading", page, m[1])
			}
		}
	}
}

// anchors are the names that GitHub gives to headings.
func anchors(t *testing.T, page string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		words := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(words, " ", "-"))
	}
	return all
}

// TestClient checks that api.md shows the client that docs/client is.
func TestClient(t *testing.T) {
	page, err := os.ReadFile("api.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("client/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```go\n"+string(source)+"```\n") {
		t.Error("the Go block of api.md is not docs/client/main.go")
	}
}

// TestServices checks that api.md names every call there is.
func TestServices(t *testing.T) {
	page, err := os.ReadFile("api.md")
	if err != nil {
		t.Fatal(err)
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("sockmgr.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			row := ""
			for line := range strings.Lines(string(page)) {
				if strings.HasPrefix(line, "| `"+string(service.Name())+"` |") {
					row = line
				}
			}
			for j := range service.Methods().Len() {
				if method := service.Methods().Get(j).Name(); !strings.Contains(row, "`"+string(method)+"`") {
					t.Errorf("api.md does not name %s/%s", service.Name(), method)
				}
			}
		}
		return true
	})
}

// TestNotYet checks that what the README says is not there is not there.
func TestNotYet(t *testing.T) {
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## Not there yet\n")
	section, _, _ = strings.Cut(section, "\n#")
	verbs := regexp.MustCompile("`sockctl ([a-z ,-]+)`").FindAllStringSubmatch(section, -1)
	if !found || len(verbs) == 0 {
		t.Fatal("the README has no section on what is not there yet")
	}
	for _, m := range verbs {
		if c, rest, err := cli.Commands().Find(strings.Fields(m[1])); err == nil && c.HasParent() && len(rest) == 0 {
			t.Errorf("the README says that there is no `sockctl %s` yet: say it in CHANGELOG.md and in docs/ instead", m[1])
		}
	}
}
