package fdstore_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
	"github.com/sockmgr/sockmgr/internal/handover"
)

// manager is the other side.
func manager(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, path
}

// next returns the next message and how many descriptors came with it, which it
// closes.
func next(t *testing.T, c *net.UnixConn) (text string, files int) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	data, control := make([]byte, 4096), make([]byte, 4096)
	n, m, _, _, err := c.ReadMsgUnix(data, control)
	if err != nil {
		t.Fatal(err)
	}
	all, err := handover.Rights(control[:m])
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		_ = unix.Close(fd)
	}
	return string(data[:n]), len(all)
}

func want(t *testing.T, c *net.UnixConn, text string, files int) {
	t.Helper()
	if got, n := next(t, c); got != text || n != files {
		t.Errorf("got %q with %d descriptors; want %q with %d", got, n, text, files)
	}
}

// What is asked is sent in order, and Wait waits for the answer to a barrier
// only where something was removed.
func TestClientInOrder(t *testing.T) {
	c, path := manager(t)
	client := fdstore.Dial(path, func(err error) { t.Error(err) })
	defer client.Close()
	client.Store("web@1.0.0", 0)
	client.Notify("READY=1")
	if err := client.Wait(t.Context()); err == nil {
		want(t, c, "FDSTORE=1\nFDPOLL=0\nFDNAME=web@1.0.0", 1)
		want(t, c, "READY=1", 0)
	} else {
		t.Error(err)
	}
	client.Remove("web@1.0.0")
	waited := make(chan error, 1)
	go func() { waited <- client.Wait(context.Background()) }()
	want(t, c, "FDSTOREREMOVE=1\nFDNAME=web@1.0.0", 0)
	select {
	case err := <-waited:
		t.Error("it did not wait:", err)
	default:
	}
	want(t, c, "BARRIER=1", 1)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := client.Wait(t.Context()); err != nil { // nothing to wait for
		t.Error(err)
	}
}

// The names that systemd hands over are bounded together: what would go beyond is
// not stored, and told. What there may be many of leaves room for the rest.
func TestClientBoundsNames(t *testing.T) {
	c, path := manager(t)
	go func() { // it reads all
		for buf := make([]byte, 4096); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}()
	failures := make(chan error, 10_000)
	client := fdstore.Dial(path, func(err error) { failures <- err })
	client.BoundNames([]string{"from-a-unit.socket"})
	size := len("from-a-unit.socket") + 1
	for i := 0; client.StoreIfRoom(fmt.Sprintf("@c%d", i), 0); i++ {
		size += len(fmt.Sprintf("@c%d:", i))
	}
	half := size
	long := strings.Repeat("x", 200)
	for i := 0; len(failures) == 0; i++ {
		client.Store(fmt.Sprintf("%s%d", long, i), 0)
		size += len(fmt.Sprintf("%s%d:", long, i))
	}
	if half > 64<<10 || half < 60<<10 || size > 128<<10 || size < 120<<10 {
		t.Errorf("%d bytes of names of many, %d of all", half, size)
	}
	client.Remove(long + "0")
	client.Store(long+"again", 0)
	if len(failures) != 1 {
		t.Errorf("%d failures were told, not 1", len(failures))
	}
	client.Redirect(path) // to a supervisor
	client.Store(long+"beyond", 0)
	client.Close()
	if len(failures) != 1 {
		t.Errorf("%d failures were told, not 1", len(failures))
	}
}

// A service manager that is gone costs nothing but a word, once; another one gets
// what is sent from then on.
func TestClientWithoutManager(t *testing.T) {
	failures := make(chan error, 10)
	client := fdstore.Dial(filepath.Join(t.TempDir(), "nobody"), func(err error) { failures <- err })
	client.Store("a", 0)
	client.Remove("a")
	if err := client.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	c, path := manager(t)
	client.Redirect(path)
	client.Notify("READY=1")
	want(t, c, "READY=1", 0)
	client.Close()
	if len(failures) != 1 {
		t.Errorf("%d failures were told, not 1", len(failures))
	}
}
