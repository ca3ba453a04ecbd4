package fdstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// LongNames is the variable that says which descriptor has the names, as
// LISTEN_FDNAMES would have them: the kernel refuses to run a program with a
// variable of 128 KiB (MAX_ARG_STRLEN, execve(2)), which some thousand names are.
// Only `sockmgr supervise` sets it, always: where it is not, names are bounded.
const LongNames = "SOCKMGR_FDNAMES"

// maxNames bounds what is read: a million names of the usual length.
const maxNames = 64 << 20

// fileName is that of the file, for this process only.
const fileName = "sockmgr names"

// isNamesFile reports whether a descriptor is what NamesFile made.
func isNamesFile(fd int) bool {
	to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && to == "/memfd:"+fileName+" (deleted)"
}

// NamesFile returns a file in memory that has the names, from its beginning.
func NamesFile(names []string) (fd int, err error) {
	fd, err = unix.MemfdCreate(fileName, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	text := []byte(strings.Join(names, ":"))
	for off := 0; off < len(text); {
		n, err := unix.Pwrite(fd, text[off:], int64(off))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			_ = unix.Close(fd)
			return -1, os.NewSyscallError("pwrite", err)
		}
		off += n
	}
	return fd, nil
}

// readNames is NamesFile the other way; it closes the file.
func readNames(fd int) (string, error) {
	f := os.NewFile(uintptr(fd), "names")
	if f == nil {
		return "", fmt.Errorf("%d is no descriptor", fd)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxNames))
	return string(text), err
}

// maxNamesTogether is what fits in LISTEN_FDNAMES, with room for the name of the
// variable and for what units name themselves.
const maxNamesTogether = 128<<10 - 1<<10

// names are those that a service manager has, where they are bounded together.
// Nil has no bound.
type names struct {
	count map[string]int
	size  int // with a colon for each
}

func newNames(already []string) *names {
	n := &names{count: map[string]int{}}
	for _, name := range already {
		n.count[name]++
		n.size += len(name) + 1
	}
	return n
}

// add reports whether there is room for one more.
func (n *names) add(name string, room int) bool {
	switch {
	case n == nil:
		return true
	case n.size+len(name)+1 > room:
		return false
	}
	n.count[name]++
	n.size += len(name) + 1
	return true
}

// remove takes out all of that name.
func (n *names) remove(name string) {
	if n != nil {
		n.size -= n.count[name] * (len(name) + 1)
		delete(n.count, name)
	}
}
