package mux

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// others lets others of the process have their turn, those included whose data
// waits on a socket: while there is a goroutine that can run, Go's scheduler does
// not look at the network but every 10 ms, and a loop that always has work can
// always run. So the loop waits for an eventfd that it has just written: for as
// long as it takes Go to find it among what else is ready.
type others struct {
	file  *os.File
	conn  syscall.RawConn
	write func(uintptr) bool
	asked bool // the eventfd is written
}

func (o *others) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	o.file = os.NewFile(uintptr(fd), "eventfd")
	if o.conn, err = o.file.SyscallConn(); err != nil {
		_ = o.file.Close()
		return err
	}
	one := uint64(1)
	o.write = func(fd uintptr) bool {
		if o.asked {
			return true
		}
		// Each write is an event for the runtime's epoll, which is edge-triggered;
		// the count has room for 10^19 of them, and nobody reads it.
		_, _, errno := syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		o.asked = errno == 0
		return errno != 0 // not written, so not waited for
	}
	return nil
}

func (o *others) close() error { return o.file.Close() }

// run returns when they have had their turn.
func (o *others) run() {
	o.asked = false
	if err := o.conn.Read(o.write); err != nil || !o.asked {
		runtime.Gosched()
	}
}
