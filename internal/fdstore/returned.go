package fdstore

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// A Returned is a descriptor that this process was started with.
type Returned struct {
	Name string
	FD   int
}

// Take returns the descriptors that this process was started with, and takes the
// variables away, so that no child believes that they are for it. They go by
// their names: systemd hands them out in any order. longNames is whether there is
// no bound to what the names are together.
//
// They are for this process if LISTEN_PID says so, or if it has the file with the
// names: `sockmgr supervise` gives that to nobody else, and so need not run a
// program first that learns its pid.
func Take() (all []Returned, longNames bool) {
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	mine := os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid())
	text := os.Getenv("LISTEN_FDNAMES")
	file, longNames := os.LookupEnv(LongNames)
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", LongNames} {
		_ = os.Unsetenv(name) // fails for names that cannot be
	}
	if err != nil || count <= 0 {
		return nil, longNames
	}
	if fd, err := strconv.Atoi(file); err == nil && fd >= firstFD+count && isNamesFile(fd) {
		mine = true
		if text, err = readNames(fd); err != nil {
			text = "" // they are of no use then, and told so
		}
	}
	if !mine {
		return nil, longNames
	}
	names := strings.Split(text, ":")
	for i := range count {
		fd := firstFD + i
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			break // there are not so many
		}
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags|unix.FD_CLOEXEC) // it is open
		r := Returned{Name: "unknown", FD: fd}
		if i < len(names) && names[i] != "" {
			r.Name = names[i]
		}
		all = append(all, r)
	}
	return all, longNames
}
