package supervise

import (
	"slices"

	"golang.org/x/sys/unix"
)

// A store has copies of descriptors by name. There may be thousands, and one more
// for each connection that a daemon accepts: nothing here looks at all of them but
// files and clear.
type store struct {
	most   int
	here   map[identity]bool
	byName map[string][]*stored
	order  uint64
}

// stored is one of them.
type stored struct {
	name  string
	fd    int
	is    identity
	given bool   // the supervisor was started with it: it is never let go
	order uint64 // they are handed over as they came
}

// An identity is what two descriptors of the same file have in common. Files of
// different kinds may have the same inode number.
type identity struct{ dev, ino uint64 }

func (s *store) count() int { return len(s.here) }

// put keeps fd; it reports whether it does. What is there already, under any
// name, stays as it is.
func (s *store) put(name string, fd int, given bool) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || len(s.here) >= s.most {
		return false
	}
	is := identity{st.Dev, st.Ino}
	if s.here[is] {
		return false
	}
	if s.here == nil {
		s.here, s.byName = map[identity]bool{}, map[string][]*stored{}
	}
	s.order++
	s.here[is] = true
	s.byName[name] = append(s.byName[name], &stored{name, fd, is, given, s.order})
	return true
}

// remove closes those of that name.
func (s *store) remove(name string) {
	some := s.byName[name]
	left := slices.DeleteFunc(some, func(have *stored) bool {
		if have.given {
			return false
		}
		delete(s.here, have.is)
		_ = unix.Close(have.fd)
		return true
	})
	if s.byName[name] = left; len(left) == 0 {
		delete(s.byName, name)
	}
}

// clear closes all.
func (s *store) clear() {
	for name := range s.byName {
		s.remove(name)
	}
}

// files are the descriptors for the next daemon, with their names.
func (s *store) files() (files []uintptr, names []string) {
	all := make([]*stored, 0, len(s.here))
	for _, some := range s.byName {
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b *stored) int { return int(int64(a.order - b.order)) })
	for _, have := range all {
		files, names = append(files, uintptr(have.fd)), append(names, have.name)
	}
	return files, names
}
