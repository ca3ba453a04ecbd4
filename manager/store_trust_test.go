package manager

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What others could have put in the place of the store is not opened, and not
// waited for; what they could read is closed to them.
func TestStoreTrust(t *testing.T) {
	open := func(dir string) string {
		s, _, err := openStore(dir)
		if err != nil {
			return err.Error()
		}
		s.close()
		return ""
	}
	whole := filepath.Join(t.TempDir(), "state")
	if why := open(whole); why != "" {
		t.Fatal(why)
	}
	for path, want := range map[string]os.FileMode{whole: 0o700, filepath.Join(whole, "state.db"): 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, fi, err)
		}
	}
	file := filepath.Join(whole, "state.db")
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if why := open(whole); why != "" {
		t.Fatal(why)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others can read it", fi, err)
	}
	for name, c := range map[string]struct {
		plant func(dir string) error
		says  string
	}{
		"link":     {func(dir string) error { return os.Symlink(file, filepath.Join(dir, "state.db")) }, "symbolic link"},
		"dangling": {func(dir string) error { return os.Symlink(dir+"/x", filepath.Join(dir, "state.db")) }, "symbolic link"},
		"fifo":     {func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "state.db"), 0o600) }, "no regular file"},
		"device":   {func(dir string) error { return os.Mkdir(filepath.Join(dir, "state.db"), 0o700) }, "directory"},
		"new":      {func(dir string) error { return os.Symlink(file, filepath.Join(dir, "state.db.new")) }, ""},
		"wide":     {func(dir string) error { return os.Chmod(dir, 0o777) }, "written by everybody"},
		"foreign": {func(dir string) error {
			if os.Geteuid() != 0 {
				return os.Chmod(dir, 0o777)
			}
			return os.Chown(dir, 4242, -1)
		}, "b"}, // belongs, or by everybody
	} {
		dir := t.TempDir()
		if err := c.plant(dir); err != nil {
			t.Fatal(err)
		}
		if why := open(dir); !strings.Contains(why, c.says) || (why == "") != (c.says == "") {
			t.Errorf("%s: %q", name, why)
		}
	}
	if why := open(whole); why != "" {
		t.Error("the store that links led to:", why)
	}
}
