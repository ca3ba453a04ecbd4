package manager

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// lockPatience is how long a daemon waits for one that ends.
const lockPatience = time.Second

// openLocked opens the file of the store, which only one daemon at a time may
// have, and makes it where there is none.
func openLocked(dir, path string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer unlock(d)
	if err := trust(d); err != nil {
		return nil, err
	}
	if err := lock(d); err != nil { // nobody else makes the file meanwhile
		return nil, err
	}
	open := func() (*os.File, error) {
		return os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) // not blocking: there may be a pipe
	}
	file, err := open()
	if errors.Is(err, os.ErrNotExist) {
		if err := create(d, path); err != nil {
			return nil, fmt.Errorf("cannot be made: %w", err)
		}
		file, err = open()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot be opened and is left as it is: %w", err)
	}
	err = trust(file)
	if err == nil {
		err = lock(file)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// trust refuses what another user could have put there, or could change: who
// writes the store says what the daemon does. A file of our own that was opened to
// others by a copy or a chmod is closed to them.
func trust(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	mode := st.Mode & 0o7777
	switch kind := st.Mode & unix.S_IFMT; {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user (uid %d): chown it, or give another --state", f.Name(), st.Uid)
	case kind == unix.S_IFDIR && mode&0o002 != 0 && mode&unix.S_ISVTX == 0:
		return fmt.Errorf("%s can be written by everybody (mode %04o): chmod 0700 it", f.Name(), mode)
	case kind == unix.S_IFREG && mode&0o077 != 0:
		return os.NewSyscallError("fchmod", unix.Fchmod(int(f.Fd()), 0o600))
	}
	return nil
}

// create makes an empty store. It has its name once it is on disk: a file of
// that name that is empty, or half of one, is never a new one.
func create(dir *os.File, path string) error {
	name := path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) { // of a daemon that was killed here
		return err
	}
	err := initialise(name)
	if err == nil {
		err = giveName(name, path)
	}
	if err != nil {
		_ = os.Remove(name) // there is nothing in it
		return err
	}
	if err := dir.Sync(); err != nil {
		return err
	}
	if parent, err := os.Open(filepath.Dir(filepath.Clean(dir.Name()))); err == nil { // otherwise it was there before us
		defer func() { _ = parent.Close() }()
		return parent.Sync()
	}
	return nil
}

func initialise(name string) error {
	db, err := bolt.Open(name, 0o600, &bolt.Options{OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
		return os.OpenFile(name, flag|os.O_EXCL|unix.O_NOFOLLOW, mode)
	}})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta, errMeta := tx.CreateBucket(bucketMeta)
		_, errAll := tx.CreateBucket(bucketListeners)
		if err := errors.Join(errMeta, errAll); err != nil {
			return err
		}
		return new(seal).put(meta, 0)
	})
	return errors.Join(err, db.Close())
}

// giveName renames, but not over a file that came in between.
func giveName(name, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system that cannot
		return os.Rename(name, path)
	}
	return os.NewSyscallError("rename", err)
}

// lock waits for a moment for one that ends.
func lock(file *os.File) error {
	fd := int(file.Fd())
	timer := time.NewTimer(lockPatience)
	defer timer.Stop()
	ticker := time.NewTicker(lockPatience / 50)
	defer ticker.Stop()
	for {
		switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ticker.C:
		case <-timer.C:
			return fmt.Errorf("another daemon%s has it open; give this one a --state of its own", holder(file))
		}
	}
}

// unlock gives a file back also where a mapping keeps it open.
func unlock(file *os.File) {
	_ = unix.Flock(int(file.Fd()), unix.LOCK_UN) // it is closed anyhow
	_ = file.Close()
}

// holder names the process that has locked a file, as far as the kernel tells.
func holder(file *os.File) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(int(file.Fd()), &st) != nil {
		return ""
	}
	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) { // 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != id {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 { // 0: in another namespace
			return fmt.Sprintf(" (pid %d)", pid)
		}
	}
	return ""
}
