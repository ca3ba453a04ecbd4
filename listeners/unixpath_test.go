package listeners_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

var pathNetworks = []string{"unix", "unixgram", "unixpacket"}

// withUmask sets the umask of the process until the test ends.
func withUmask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode()
}

// openErr opens what must fail, and returns why.
func openErr(t *testing.T, uris ...string) error {
	t.Helper()
	l, err := listeners.Open("test", spec(t, listeners.Echo{}, "", uris...))
	if err == nil {
		l.Close()
		t.Errorf("%v was opened", uris)
	}
	return err
}

// bindUnix makes a socket at path, as another program would.
func bindUnix(t *testing.T, kind int, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestUnixMode(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o777} {
		t.Run(fmt.Sprintf("umask %03o", mask), func(t *testing.T) {
			h, dir := newHost(t, "epoll", 0), shortDir(t)
			withUmask(t, mask)
			for _, network := range pathNetworks {
				for options, want := range map[string]os.FileMode{"": 0o660, "unix.mode=0600": 0o600, "unix.mode=777": 0o777, "unix.mode=0": 0} {
					path := dir + "/" + network
					l, err := listeners.Open("test", spec(t, listeners.Echo{}, options, network+"://"+path))
					if err != nil {
						t.Fatal(err)
					}
					if got := modeOf(t, path); got != want|os.ModeSocket {
						t.Errorf("%s %q: mode %v, want %v", network, options, got, want)
					}
					l.Close()
				}
			}
			l := h.open(spec(t, listeners.Echo{}, "", "unix://"+dir+"/s", "unix://@sockmgr-mode"))
			mode := listeners.LookupOption("unix.mode")
			for value, want := range map[string]os.FileMode{"0604": 0o604, "": 0o660} {
				v := listeners.StringValue(value)
				if value == "" {
					v = listeners.Value{}
				}
				h.do(func() {
					if r := l.Tune(mode, v); r.Outcome == listeners.Failed || r.Outcome == listeners.Clamped {
						t.Errorf("%+v", r)
					}
				})
				if got := modeOf(t, dir+"/s"); got != want|os.ModeSocket {
					t.Errorf("tuned to %q: mode %v", value, got)
				}
			}
		})
	}
}

// A mode that is refused for one path is given to none.
func TestUnixModeRefused(t *testing.T) {
	h, dir := newHost(t, "epoll", 0), shortDir(t)
	l := h.open(spec(t, listeners.Echo{}, "unix.mode=0640", "unix://"+dir+"/a", "unix://"+dir+"/b"))
	if err := os.Remove(dir + "/b"); err != nil {
		t.Fatal(err)
	}
	h.do(func() {
		if r := l.Tune(listeners.LookupOption("unix.mode"), listeners.StringValue("0666")); r.Outcome != listeners.Failed || r.Errno != "ENOENT" {
			t.Errorf("%+v", r)
		}
		if v := l.Spec().Options["unix.mode"]; v.String() != "0640" {
			t.Errorf("the spec has %v", v)
		}
	})
	if got := modeOf(t, dir+"/a"); got.Perm() != 0o640 {
		t.Errorf("mode %v", got)
	}
}

// Another's file at our path is neither changed nor removed.
func TestUnixPathReplaced(t *testing.T) {
	h, dir := newHost(t, "epoll", 0), shortDir(t)
	path := dir + "/s"
	l := h.open(spec(t, listeners.Echo{}, "", "unix://"+path))
	if err := os.Rename(path, dir+"/moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.do(func() {
		if r := l.Tune(listeners.LookupOption("unix.mode"), listeners.StringValue("0666")); r.Outcome != listeners.Failed {
			t.Errorf("%+v", r)
		}
		l.Stop(0)
	})
	if got := modeOf(t, path); got != 0o600 {
		t.Errorf("mode %v", got)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "another's" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestUnixPathRemoved(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "", "unix://"+dir+"/s", "unixgram://"+dir+"/g", "unixpacket://"+dir+"/p"))
		h.do(func() { l.Stop(0) })
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	})
}

// What a process leaves behind that was killed is taken away, whatever kind of
// socket it was.
func TestUnixStale(t *testing.T) {
	dir := shortDir(t)
	noLeaks(t)
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		for _, network := range pathNetworks {
			path := fmt.Sprintf("%s/%s%d", dir, network, kind)
			unix.Close(bindUnix(t, kind, path))
			l, err := listeners.Open("test", spec(t, listeners.Echo{}, "", network+"://"+path))
			if err != nil {
				t.Errorf("%s over kind %d: %v", network, kind, err)
				continue
			}
			l.Close()
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// Whoever still has the socket keeps it: one that listens, one with a full
// queue, one that is bound and does not listen yet.
func TestUnixLive(t *testing.T) {
	dir := shortDir(t)
	noLeaks(t)
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		for _, state := range []string{"bound", "listening", "full"} {
			path := fmt.Sprintf("%s/%d%s", dir, kind, state)
			fd := bindUnix(t, kind, path)
			if state != "bound" && kind != unix.SOCK_DGRAM {
				if err := unix.Listen(fd, 0); err != nil {
					t.Fatal(err)
				}
			}
			if state == "full" {
				fillUnix(t, kind, path)
			}
			for _, network := range pathNetworks {
				err := openErr(t, network+"://"+path)
				if !errors.Is(err, unix.EADDRINUSE) || !errors.Is(err, listeners.AddressInUse) {
					t.Errorf("%s over kind %d, %s: %v", network, kind, state, err)
				}
				if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
					t.Errorf("does not say who has it: %v", err)
				}
			}
			if modeOf(t, path)&os.ModeSocket == 0 {
				t.Errorf("%s is gone", path)
			}
		}
	}
}

// fillUnix connects, or sends, until it would have to wait.
func fillUnix(t *testing.T, kind int, path string) {
	t.Helper()
	for {
		fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if kind == unix.SOCK_DGRAM && err == nil {
			_, err = unix.Write(fd, []byte("x"))
		}
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnixNotASocket(t *testing.T) {
	dir := shortDir(t)
	noLeaks(t)
	unix.Close(bindUnix(t, unix.SOCK_STREAM, dir+"/stale"))
	creators := map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink(dir+"/stale", path) },
		"dangling":  func(path string) error { return os.Symlink(dir+"/nowhere", path) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
	}
	for name, f := range creators {
		path := dir + "/" + name
		if err := f(path); err != nil {
			t.Fatal(err)
		}
		before := modeOf(t, path)
		for _, network := range pathNetworks {
			if err := openErr(t, network+"://"+path); !errors.Is(err, listeners.AddressInUse) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := modeOf(t, path); got != before {
			t.Errorf("%s: %v became %v", name, before, got)
		}
	}
	for path, want := range map[string]string{
		dir + "/nodir/s": "directory",
		dir + "/file/s":  "directory",
		dir + "/stale/s": "directory",
		dir + "/" + strings.Repeat("x", 107-len(dir)): "107",
	} {
		_, err := listeners.ParseSpec([]string{"unix://" + path}, listeners.Echo{}, nil)
		if err == nil {
			err = openErr(t, "unix://"+path)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// The longest path that sockaddr_un takes works, and one byte more does not.
func TestUnixLongestPath(t *testing.T) {
	h, dir := newHost(t, "epoll", 0), shortDir(t)
	path := dir + "/" + strings.Repeat("x", 107-len(dir)-1)
	unix.Close(bindUnix(t, unix.SOCK_STREAM, path)) // stale: what is put aside has a longer name
	abstract := "@" + strings.Repeat("y", 106)
	l := h.open(spec(t, listeners.Echo{}, "", "unix://"+path, "unix://"+abstract))
	for i, want := range []string{path, abstract} {
		if got := h.status(l).Bound[i].Path; got != want {
			t.Errorf("bound to %q", got)
		}
		if got := ask(t, dial(t, h.addr(l, i)), []byte("x")); string(got) != "x" {
			t.Errorf("got %q", got)
		}
	}
	for _, path := range []string{path + "x", abstract + "y"} {
		if _, err := listeners.ParseAddress("unix://" + path); err == nil {
			t.Errorf("%q is accepted", path)
		}
	}
}

func TestUnixAbstract(t *testing.T) {
	h := newHost(t, "epoll", 0)
	name := "@sockmgr-test-" + filepath.Base(shortDir(t))
	l := h.open(spec(t, listeners.Echo{}, "unix.mode=0600", "unix://"+name))
	if got := ask(t, dial(t, h.addr(l, 0)), []byte("x")); string(got) != "x" {
		t.Errorf("got %q", got)
	}
	if err := openErr(t, "unix://"+name); !errors.Is(err, listeners.AddressInUse) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(name); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

// Of those who want the same stale path at once, exactly one gets it, and can
// be reached there.
func TestUnixRace(t *testing.T) {
	h, dir := newHost(t, "epoll", 0), shortDir(t)
	for round := range 25 {
		path := fmt.Sprintf("%s/%d", dir, round)
		unix.Close(bindUnix(t, unix.SOCK_STREAM, path))
		// Several addresses: time passes between bind and listen.
		s := spec(t, listeners.Echo{}, "", "unix://"+path, "tcp://127.0.0.1:0", "tcp://127.0.0.1:0", "tcp://127.0.0.1:0")
		const openers = 6
		var won []*listeners.Listener
		var mu sync.Mutex
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range openers {
			wg.Go(func() {
				<-begin
				l, err := listeners.Open("test", s)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, l)
				case !errors.Is(err, listeners.AddressInUse):
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("round %d: %d of %d opened it", round, len(won), openers)
		}
		h.do(func() {
			if err := won[0].Attach(h.set, &listeners.Counters{}); err != nil {
				t.Error(err)
			}
		})
		c := dial(t, &net.UnixAddr{Net: "unix", Name: path})
		if got := ask(t, c, []byte("x")); string(got) != "x" {
			t.Errorf("round %d: got %q", round, got)
		}
		c.Close()
		h.do(func() { won[0].Stop(0) })
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// The same between processes.
func TestUnixRaceProcesses(t *testing.T) {
	dir := os.Getenv("SOCKMGR_TEST_DIR")
	if dir != "" { // one of the children
		io.ReadFull(os.Stdin, make([]byte, 1)) // all begin at once
		for round := range 8 {
			l, err := listeners.Open("test", spec(t, listeners.Echo{}, "", fmt.Sprintf("unix://%s/%d", dir, round)))
			switch {
			case err == nil:
				fmt.Printf("won %d\n", round) //nolint:forbidigo // read by the parent
				defer l.Close()
			case !errors.Is(err, listeners.AddressInUse):
				fmt.Printf("failed %d: %v\n", round, err) //nolint:forbidigo // as above
			}
		}
		fmt.Println("through") //nolint:forbidigo // as above
		io.ReadFull(os.Stdin, make([]byte, 1))
		return
	}
	dir = shortDir(t)
	for round := range 8 {
		unix.Close(bindUnix(t, unix.SOCK_STREAM, fmt.Sprintf("%s/%d", dir, round)))
	}
	const children = 3
	var ins [children]io.WriteCloser
	var outs [children]*bufio.Scanner
	var cmds [children]*exec.Cmd
	for i := range children {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestUnixRaceProcesses$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "SOCKMGR_TEST_DIR="+dir)
		ins[i], _ = cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		outs[i] = bufio.NewScanner(out)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds[i] = cmd
	}
	for _, in := range ins {
		in.Write([]byte("x"))
	}
	all := ""
	for _, out := range outs {
		for out.Scan() && out.Text() != "through" {
			all += out.Text() + "\n"
		}
	}
	for i, cmd := range cmds {
		ins[i].Write([]byte("x"))
		for outs[i].Scan() { // PASS
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, all)
		}
	}
	for round := range 8 {
		if n := strings.Count(all, fmt.Sprintf("won %d\n", round)); n != 1 {
			t.Errorf("round %d: %d processes opened it", round, n)
		}
	}
	if strings.Contains(all, "failed") {
		t.Error(all)
	}
}

// Who can write to the directory swaps the path for a link while it is bound: the
// file that the link leads to keeps its mode.
func TestUnixModeFollowsNoLink(t *testing.T) {
	dir := shortDir(t)
	noLeaks(t)
	path, victim, link := dir+"/s", dir+"/victim", dir+"/link"
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	swapped := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		defer func() { swapped <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Symlink(victim, link)
			if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSocket != 0 && os.Rename(link, path) == nil {
				n++
			}
		}
	}()
	for range 500 {
		l, err := listeners.Open("test", spec(t, listeners.Echo{}, "unix.mode=0666", "unix://"+path))
		if err == nil {
			l.Close()
		}
		_ = os.Remove(path)
	}
	close(stop)
	t.Log(<-swapped, "swapped")
	if got := modeOf(t, victim); got != 0o600 {
		t.Errorf("the mode of another file is %v", got)
	}
}
