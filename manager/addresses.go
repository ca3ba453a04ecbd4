package manager

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// betweenAddresses bounds how often addresses that come have listeners tried
// again: a host may be given thousands.
const betweenAddresses = 250 * time.Millisecond

// openAddresses returns a socket that the kernel tells of addresses on
// (rtnetlink(7)). It takes no capability.
func openAddresses() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind(AF_NETLINK)", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// watchAddresses has the keeper try at once what waits for an address, when one
// comes, until f is closed. Without it they are tried after a while, as ever.
func (m *Manager) watchAddresses(f *os.File) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, unix.ENOBUFS): // more came than there was room for
		case err != nil:
			m.log.Warn("addresses that come are not heard of any more: listeners that wait for one are tried after a while", "error", err)
			return
		case !hasNewAddress(buf[:n]):
			continue
		}
		m.addressCame.Store(true)
		m.poke()
		pause.Reset(betweenAddresses)
		select {
		case <-pause.C:
		case <-m.ending:
			return
		}
	}
}

func hasNewAddress(b []byte) bool {
	all, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true // to try once too often does no harm
	}
	for i := range all {
		if all[i].Header.Type == unix.RTM_NEWADDR {
			return true
		}
	}
	return false
}

// keepAddresses runs watchAddresses until Shutdown.
func (m *Manager) keepAddresses() {
	f, err := openAddresses()
	if err != nil {
		m.log.Warn("addresses that come cannot be heard of: listeners that wait for one are tried after a while", "error", err,
			"fix", "AF_NETLINK in RestrictAddressFamilies= of the unit")
		return
	}
	m.keeper.Go(func() { m.watchAddresses(f) })
	m.keeper.Go(func() {
		<-m.ending
		if err := f.Close(); err != nil {
			m.log.Warn("rtnetlink", "error", err)
		}
	})
}

// dueByAddress makes due what could not run for want of an address, if one came.
func (m *Manager) dueByAddress() {
	if !m.addressCame.Swap(false) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := range m.tended {
		if e.failure != nil && errors.Is(e.failure, unix.EADDRNOTAVAIL) {
			e.retry = time.Now()
		}
	}
}
