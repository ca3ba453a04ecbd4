package daemon

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// The service manager's socket is known by whatever path leads to it, and what
// is asked of the file system for that is asked of the path in hand only.
func TestManagerIsKnownByAnyPath(t *testing.T) {
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, link, other := filepath.Join(dir, "notify"), filepath.Join(dir, "link"), filepath.Join(dir, "other")
	for _, path := range []string{socket, other} {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := os.Symlink(socket, link); err != nil {
		t.Fatal(err)
	}
	k := newKeeper("", nil, false, hclog.NewNullLogger())
	if k.isManager("") || k.isManager(socket) {
		t.Error("there is none")
	}
	k = newKeeper(socket, nil, false, hclog.NewNullLogger())
	defer k.close()
	for path, want := range map[string]bool{socket: true, link: true, other: false, filepath.Join(dir, "missing"): false, "@" + socket: false, "": false} {
		if got := k.isManager(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
	k.socket = "@abstract" // as superviseBy does
	k.reserve()
	if !k.isManager("@abstract") || k.isManager(socket) || k.isManager("abstract") {
		t.Error("the one in the abstract namespace is the manager now")
	}
	k.left = []place{placeOf(socket)} // as leaveOwn does
	k.reserve()
	if !k.isManager("@abstract") || !k.isManager(socket) || !k.isManager(link) || k.isManager(other) {
		t.Error("what another process has is reserved, too")
	}
}
