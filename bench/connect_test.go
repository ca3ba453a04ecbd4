package main

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connect that waits because the backlog is full goes on after a signal.
func TestConnectGoesOnAfterSignal(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil { // room for one
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	first, err := dialFrom(unix.SOCK_STREAM, netip.Addr{}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(first)
	thread, done := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and ends with it
		thread <- unix.Gettid()
		second, err := dialFrom(unix.SOCK_STREAM, netip.Addr{}, to)
		_ = unix.Close(second)
		done <- err
	}()
	tid, tick := <-thread, time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 50 {
		<-tick.C
		if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGURG); err != nil {
			t.Fatal(err)
		}
	}
	accepted, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(accepted)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
