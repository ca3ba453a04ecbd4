package process

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An End is that of a child, or of a descendant whose parents have ended.
type End struct {
	PID    int
	Kin    bool // it was in the process group of this process, as programs of exec, with sessions of their own, cannot be
	Status unix.WaitStatus
}

// WaitAny waits for any child. With WNOHANG it does not wait, and is EAGAIN if none
// has ended. It is ECHILD if there is none.
func WaitAny(options int) (e End, err error) {
	for {
		var info unix.Siginfo
		err = unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|options, nil)
		if err == nil {
			if e.PID = int((*childInfo)(unsafe.Pointer(&info)).fields.pid); e.PID == 0 {
				return e, unix.EAGAIN
			}
			group, errGroup := unix.Getpgid(e.PID) // a zombie has it still
			e.Kin = errGroup == nil && group == unix.Getpgrp()
			_, err = unix.Wait4(e.PID, &e.Status, unix.WNOHANG, nil)
		}
		if !errors.Is(err, unix.EINTR) {
			return e, err
		}
	}
}

// childInfo is siginfo_t of a child that has ended (sigaction(2)); x/sys has no name
// for its fields.
type childInfo struct {
	_      [3]int32
	fields struct {
		_   [0]uintptr // it is aligned as a pointer
		pid int32
	}
}
