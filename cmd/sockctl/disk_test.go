//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// tryListener makes a listener that has much to say.
func tryListener(ctx context.Context, v *victim, name string, bytes int) error {
	notes := map[string]string{}
	for ; bytes > 0; bytes -= 4000 {
		notes[fmt.Sprint(bytes)] = strings.Repeat("x", min(bytes, 4000))
	}
	spec := &pb.ListenerSpec{Handler: &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, Listen: []string{"tcp://127.0.0.1:0"}}
	_, err := pb.NewListenerServiceClient(v.conn).CreateListener(ctx, &pb.CreateListenerRequest{
		ListenerId: name, Listener: &pb.Listener{Annotations: notes, Spec: spec},
	})
	return err
}

func namesOf(ctx context.Context, t *testing.T, v *victim) (names []string) {
	t.Helper()
	list, err := pb.NewListenerServiceClient(v.conn).ListListeners(ctx, &pb.ListListenersRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list.GetListeners() {
		names = append(names, strings.TrimPrefix(l.GetName(), "listeners/"))
	}
	slices.Sort(names)
	return names
}

// notSaved checks what a client hears of a change that could not be saved.
func notSaved(t *testing.T, v *victim, err error) {
	t.Helper()
	if status.Code(err) == codes.OK || !strings.Contains(fmt.Sprint(err), "could not be saved in "+v.dir+"/state/state.db; nothing was changed") {
		t.Errorf("%v", err)
	}
}

// The disk fails in any way while a change is saved: the change is refused, all
// that runs goes on, and what was acknowledged before is there after a kill -9.
// Where there was no room, changes are saved again once there is; after all
// else not before a restart.
func TestDiskFails(t *testing.T) {
	for _, c := range []struct {
		fault    string
		size     int
		forReady bool // it goes on by itself
	}{
		{"fdatasync:error=EIO", 0, false},
		{"fdatasync:error=EIO:when=2+", 0, false}, // the data is there, the page that makes it count is not
		{"fdatasync:error=ENOSPC", 0, false},      // room that was promised, and is not there
		{"fsync:error=EIO", 200_000, false},       // the file grows
		{"ftruncate:error=ENOSPC", 200_000, false},
		{"pwrite64:error=EIO", 0, false},
		{"pwrite64:error=ENOSPC", 0, true},
		{"pwrite64:error=EDQUOT:when=2+", 0, true},
	} {
		t.Run(strings.ReplaceAll(c.fault, ":", " "), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			v := startVictim(t, t.TempDir())
			address := makeListener(ctx, t, v.conn, "web", 0, "tcp://127.0.0.1:0")[0]
			open := ask(t, address)
			end := inject(t, v.cmd.Process.Pid, v.dir+"/state/state.db", c.fault)
			want := []string{"web"}
			// strace counts the calls of each thread for itself: where it is the
			// second that fails, a change may pass whose calls were of two threads.
			later := strings.Contains(c.fault, "when=")
			lost := "lost0"
			err := tryListener(ctx, v, lost, c.size)
			for ; later && err == nil && len(want) < 100; err = tryListener(ctx, v, lost, c.size) {
				want = append(want, lost)
				lost = fmt.Sprintf("lost%d", len(want)-1)
			}
			notSaved(t, v, err)
			slices.Sort(want)
			if c.size == 0 && (!later || !c.forReady) { // after all but a lack of room nothing more is saved, whatever the thread
				_, err := pb.NewListenerServiceClient(v.conn).DeleteListener(ctx, &pb.DeleteListenerRequest{Name: "web"})
				notSaved(t, v, err)
			}
			answered(t, open)
			answered(t, ask(t, address))
			end()
			if names := namesOf(ctx, t, v); !slices.Equal(names, want) {
				t.Errorf("there is %v, want %v", names, want)
			}
			if err := tryListener(ctx, v, "later", 0); c.forReady && err != nil {
				t.Error("it does not go on:", err)
			} else if c.forReady {
				want = append([]string{"later"}, want...)
			} else {
				notSaved(t, v, err)
			}
			answered(t, ask(t, address))
			v.kill(t)
			v = startVictim(t, v.dir)
			if names := namesOf(ctx, t, v); !slices.Equal(slices.DeleteFunc(names, func(n string) bool { return !c.forReady && n == lost }), want) {
				t.Errorf("after a restart there is %v, want %v, and %s or not", names, want, lost)
			}
			if err := tryListener(ctx, v, "last", 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// fill makes listeners until one cannot be saved.
func fill(ctx context.Context, t *testing.T, v *victim) (made []string) {
	t.Helper()
	for i := range 100 {
		name := fmt.Sprintf("l%02d", i)
		if err := tryListener(ctx, v, name, 12_000); err != nil {
			notSaved(t, v, err)
			return made
		}
		made = append(made, name)
	}
	t.Fatal("it is never full")
	return nil
}

// A disk that is really full: what could be saved comes back, and when there is
// room it goes on, without a restart.
func TestDiskFull(t *testing.T) {
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("there is no unshare (apt-get install util-linux)")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	unshare := []string{"unshare", "-m"}
	if os.Geteuid() != 0 {
		unshare = []string{"unshare", "-rm"}
	}
	mount := `mount -t tmpfs -o size=512k none "$0" && head -c 256k /dev/zero >"$0/ballast" && exec "$@"`
	if out, err := exec.Command(unshare[0], append(unshare[1:], "sh", "-c", mount, dir+"/state", "true")...).CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted here: %s", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	v := startVictim(t, dir, append(unshare, "sh", "-c", mount, dir+"/state")...)
	address := makeListener(ctx, t, v.conn, "web", 0, "tcp://127.0.0.1:0")[0]
	made := fill(ctx, t, v)
	answered(t, ask(t, address))
	if err := os.Remove(fmt.Sprintf("/proc/%d/root%s/state/ballast", v.cmd.Process.Pid, dir)); err != nil {
		t.Fatal(err)
	}
	more := 0
	for ; more < 5; more++ {
		if err := tryListener(ctx, v, fmt.Sprintf("more%d", more), 12_000); err != nil {
			t.Error(err)
		}
	}
	image, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s/state/state.db", v.cmd.Process.Pid, dir))
	if err != nil {
		t.Fatal(err)
	}
	v.kill(t)
	if err := os.WriteFile(filepath.Join(dir, "state", "state.db"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	v = startVictim(t, dir)
	if names := namesOf(ctx, t, v); len(names) != 1+len(made)+more {
		t.Errorf("there is %v, want web, %v and %d more", names, made, more)
	}
	t.Logf("%d listeners until the disk was full, %d more after there was room", len(made), more)
}

// The limit of a file's size is met like a full disk, and its signal ends
// nobody.
func TestFileSizeLimit(t *testing.T) {
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Skip("there is no prlimit (apt-get install util-linux)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	v := startVictim(t, t.TempDir(), "prlimit", "--fsize=131072")
	address := makeListener(ctx, t, v.conn, "web", 0, "tcp://127.0.0.1:0")[0]
	made := fill(ctx, t, v)
	answered(t, ask(t, address))
	v.kill(t)
	v = startVictim(t, v.dir)
	if names := namesOf(ctx, t, v); len(names) != 1+len(made) {
		t.Errorf("there is %v, want web and %v", names, made)
	}
}
