package daemon

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// What somebody puts in the place of the control socket keeps its mode: a link is
// not followed, and a file is no socket.
func TestOpenToFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim, link, sock := filepath.Join(dir, "victim"), filepath.Join(dir, "link"), filepath.Join(dir, "s")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	toSocket := filepath.Join(dir, "to-socket")
	if err := os.Symlink(sock, toSocket); err != nil {
		t.Fatal(err)
	}
	before := mode(t, sock)
	for _, path := range []string{victim, link, toSocket, filepath.Join(dir, "nothing")} {
		if err := openTo(path, -1, 0o666); err == nil {
			t.Error(path, "is opened")
		}
	}
	if got := mode(t, victim); got != 0o600 {
		t.Errorf("the mode of another file is %o", got)
	}
	if got := mode(t, sock); got != before {
		t.Errorf("the mode is %o, through a link", got)
	}
	if err := openTo(sock, os.Getegid(), 0o660); err != nil || mode(t, sock) != 0o660 {
		t.Errorf("%o, %v", mode(t, sock), err)
	}
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm()
}
