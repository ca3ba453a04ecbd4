package supervise

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A store has copies of descriptors by name.
type store struct {
	most int
	all  []stored
}

// stored is one of them.
type stored struct {
	name  string
	fd    int
	inode uint64 // the same socket is not kept twice
	given bool   // the supervisor was started with it: it is never let go
}

// put keeps fd; it reports whether it does. What is there already, under any
// name, stays as it is.
func (s *store) put(name string, fd int, given bool) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || len(s.all) >= s.most {
		return false
	}
	if slices.ContainsFunc(s.all, func(have stored) bool { return have.inode == st.Ino }) {
		return false
	}
	s.all = append(s.all, stored{name, fd, st.Ino, given})
	return true
}

// remove closes those of that name.
func (s *store) remove(name string) {
	s.drop(func(have stored) bool { return have.name == name })
}

// clear closes all.
func (s *store) clear() { s.drop(func(stored) bool { return true }) }

func (s *store) drop(gone func(stored) bool) {
	s.all = slices.DeleteFunc(s.all, func(have stored) bool {
		if have.given || !gone(have) {
			return false
		}
		_ = unix.Close(have.fd)
		return true
	})
}

// files are the descriptors for the next daemon, and names what LISTEN_FDNAMES
// has for them.
func (s *store) files() (files []uintptr, names string) {
	words := make([]string, 0, len(s.all))
	for _, have := range s.all {
		files, words = append(files, uintptr(have.fd)), append(words, have.name)
	}
	return files, strings.Join(words, ":")
}
