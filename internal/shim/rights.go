package shim

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dropRights leaves the program its user and groups, and nothing with which it
// could become more: no capability in any set, and no_new_privs. A program of
// root's own keeps what root has, since nothing else makes it root's; only by
// setuid files and file capabilities nobody gains.
func (t *task) dropRights() error {
	root := os.Geteuid() == 0
	if t.As != nil {
		root = t.As.UID == 0
	}
	if !root || t.Powerless {
		if err := dropBounding(); err != nil {
			return err
		}
	}
	if t.As != nil {
		if err := t.As.become(); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return failure("prctl PR_CAP_AMBIENT_CLEAR_ALL", err)
	}
	if err := dropCapabilities(root); err != nil {
		return err
	}
	return failureOf("prctl PR_SET_NO_NEW_PRIVS", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

func failureOf(step string, err error) error {
	if err == nil {
		return nil
	}
	return failure(step, err)
}

// dropBounding empties the bounding set, which takes CAP_SETPCAP. Without that
// no_new_privs has to do, and does.
func dropBounding() error {
	for c := uintptr(0); ; c++ {
		_, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0)
		switch {
		case errors.Is(errno, unix.EPERM), errors.Is(errno, unix.EINVAL): // not allowed; the last one was dropped
			return nil
		case errno != 0:
			return failure("prctl PR_CAPBSET_DROP", errno)
		}
	}
}

// become is of this thread only, as is all here. It is by numbers: who they
// are the daemon has looked up.
func (u *User) become() error {
	var groups unsafe.Pointer
	if len(u.Groups) > 0 {
		groups = unsafe.Pointer(&u.Groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(u.Groups)), uintptr(groups), 0); errno != 0 {
		return failure("setgroups", errno)
	}
	gid, uid := uintptr(u.GID), uintptr(u.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return failure("setresgid", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return failure("setresuid", errno)
	}
	return nil
}

// dropCapabilities empties the inheritable set, and of who is not root the
// others.
func dropCapabilities(root bool) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if root {
		if err := unix.Capget(&header, &sets[0]); err != nil {
			return failure("capget", err)
		}
		sets[0].Inheritable, sets[1].Inheritable = 0, 0
	}
	return failureOf("capset", unix.Capset(&header, &sets[0]))
}

// signals is how many there are.
const signals = 64

// resetSignals undoes what the daemon, and Go's runtime, have made of signals:
// what is ignored stays so in a program, and so does what is blocked.
func resetSignals() error {
	var byDefault [4]uint64 // more than the kernel's struct sigaction
	for sig := uintptr(1); sig <= signals; sig++ {
		if sig == uintptr(unix.SIGKILL) || sig == uintptr(unix.SIGSTOP) {
			continue
		}
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&byDefault)), 0, signals/8, 0, 0); errno != 0 {
			return failure("rt_sigaction", errno)
		}
	}
	var none uint64
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, signals/8, 0, 0); errno != 0 {
		return failure("rt_sigprocmask", errno)
	}
	return nil
}
