package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// bareCommand is the hidden command that opens COUNT listening sockets on one
// epoll, as a program does that does nothing else, and says what that took: what
// perf's `cref listeners COUNT` does in C.
const (
	bareCommand = "open-bare"
	applyPort   = 10_000 // the first, as there; below those that the kernel gives to clients
)

func openSockets(args []string, out io.Writer) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	begin, cpu := time.Now(), cpuClock(os.Getpid())
	for i := range count {
		if err := openSocket(epoll, applyPort+i); err != nil {
			return fmt.Errorf("socket %d: %w", i, err)
		}
	}
	each := func(d time.Duration) float64 { return us(d) / float64(count) }
	return json.NewEncoder(out).Encode(map[string]any{
		"opened": count, "open_us": each(time.Since(begin)), "open_cpu_us": each(cpuClock(os.Getpid()) - cpu),
	})
}

// openSocket leaves it open: the process ends.
func openSocket(epoll, port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 3, 0, 1}, Port: port}),
		unix.Listen(fd, 1024),
		unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}
