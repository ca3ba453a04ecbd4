package manager

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// checkCalls asks for each thing of the kernel's that may be missing: because the
// kernel is old or built without it, or because the unit or the container forbids
// it. What is missing costs a feature, never the daemon.
func checkCalls() []Finding {
	const forbidden = "; or allow it in SystemCallFilter= of the unit, or the container's seccomp profile"
	rows := []struct {
		check, use, fix string
		try             func() error
	}{
		{"kernel.pidfd", "programs of exec are watched", "Linux 5.3 or later" + forbidden, tryPidfd},
		{
			"kernel.sock_diag", "queues of Unix listeners are shown, and listeners hear of addresses that come",
			"CONFIG_UNIX_DIAG; AF_NETLINK in RestrictAddressFamilies= of the unit", tryNetlink,
		},
		{"kernel.tcp_info", "round trips, losses and the positions of durable connections are known", "a host whose kernel is Linux", tryTCPInfo},
		{"kernel.memfd", "durability=connections has its buffers there, and the next daemon the names of its sockets", "Linux 3.17 or later" + forbidden, tryMemfd},
		{"kernel.udp_gro", "bursts of datagrams are received together", "Linux 5.0 or later", func() error { return tryUDP(unix.UDP_GRO, "UDP_GRO") }},
		{"kernel.udp_segment", "bursts of datagrams are sent together", "Linux 4.18 or later", func() error { return tryUDP(unix.UDP_SEGMENT, "UDP_SEGMENT") }},
	}
	found := make([]Finding, 0, len(rows))
	for _, r := range rows {
		f := Finding{Check: r.check, Message: r.use}
		if err := r.try(); err != nil {
			f = Finding{r.check, FindingWarning, fmt.Sprintf("not so: %s (%v)", r.use, err), r.fix}
		}
		found = append(found, f)
	}
	return found
}

func tryPidfd() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	return unix.Close(fd)
}

func tryNetlink() error {
	for _, protocol := range []int{unix.NETLINK_SOCK_DIAG, unix.NETLINK_ROUTE} {
		if err := trySocket(unix.AF_NETLINK, unix.SOCK_RAW, protocol, func(int) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

func tryTCPInfo() error {
	return trySocket(unix.AF_INET, unix.SOCK_STREAM, 0, func(fd int) error {
		_, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return os.NewSyscallError("getsockopt TCP_INFO", err)
	})
}

func tryMemfd() error {
	fd, err := unix.MemfdCreate("sockmgr doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	return unix.Close(fd)
}

func tryUDP(option int, name string) error {
	return trySocket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, option)
		return os.NewSyscallError("getsockopt "+name, err)
	})
}

func trySocket(family, kind, protocol int, try func(fd int) error) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	return errors.Join(try(fd), unix.Close(fd))
}

// checkPipes tells whether forward has room to pass bytes on without copying them:
// the kernel gives a user so many pages of pipes, and smaller pipes beyond that.
func checkPipes() Finding {
	const name = "fs.pipe-user-pages-soft"
	f := Finding{Check: "sysctl." + name, Message: "long flows of forward go through pipes, uncopied (splice)"}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return Finding{f.Check, FindingWarning, fmt.Sprintf("flows of forward are copied: %v", os.NewSyscallError("pipe2", err)), "raise LimitNOFILE= of the unit"}
	}
	defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
	_, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, listeners.PipeSize)
	size, errSize := unix.FcntlInt(uintptr(fds[0]), unix.F_GETPIPE_SZ, 0)
	if err != nil && errSize == nil {
		soft, _ := listeners.Sysctl(name)
		f.Status = FindingWarning
		f.Message = fmt.Sprintf("a pipe of forward has %d KiB, not %d (%v): bytes of long flows cost more CPU", size>>10, listeners.PipeSize>>10, err)
		f.Fix = fmt.Sprintf("sysctl -w %s=%d and fs.pipe-max-size=%d", name, max(4*soft, 1<<18), listeners.PipeSize)
	}
	return f
}

// checkHandshakes finds where fewer handshakes than listeners want may be under
// way: without SYN cookies the kernel drops what is beyond three quarters of it.
func checkHandshakes(all []Info) Finding {
	const name = "net.ipv4.tcp_max_syn_backlog"
	f := Finding{Check: "sysctl." + name, Message: "bounds no listener: SYN cookies are on"}
	cookies, known := listeners.Sysctl("net.ipv4.tcp_syncookies")
	limit, ok := listeners.Sysctl(name)
	if !ok || !known || cookies != 0 {
		return f
	}
	f.Message = fmt.Sprintf("is %d, and SYN cookies are off; no listener wants a longer backlog", limit)
	for i := range all {
		if want, ok := all[i].Spec.Options["backlog"].Any().(int64); ok && want > limit {
			f.Status, f.Fix = FindingWarning, "sysctl -w net.ipv4.tcp_syncookies=1"
			f.Message = fmt.Sprintf("is %d, SYN cookies are off, and %s wants backlog=%d: more handshakes than that are dropped in a rush", limit, all[i].Name, want)
			limit = want
		}
	}
	return f
}

// checkKept tells whether the sockets outlive the daemon.
func (m *Manager) checkKept() Finding {
	if m.kept.Has() {
		return Finding{Check: "descriptor_store", Message: "copies of the sockets are kept: clients who wait survive a daemon that is killed"}
	}
	return Finding{
		"descriptor_store", FindingWarning, "nobody keeps copies of the sockets: a daemon that is killed loses them, and who waits in their queues",
		"sockmgr supervise in place of sockmgr; under systemd FileDescriptorStoreMax= and NotifyAccess=main in the unit",
	}
}

// checkStateMode tells who else can read what the listeners are.
func checkStateMode(dir string) Finding {
	f := Finding{Check: "state.mode", Message: "only the daemon's user can read " + dir}
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	switch {
	case err != nil:
		f.Status, f.Message, f.Fix = FindingFailed, fmt.Sprintf("stat %s: %v", dir, err), "look after the directory of --state"
	case st.Mode&0o022 != 0:
		f.Status, f.Fix = FindingWarning, "chmod 0700 "+dir
		f.Message = fmt.Sprintf("%s has mode %04o: others can put another state file there", dir, st.Mode&0o7777)
	case st.Mode&0o055 != 0:
		f.Status, f.Fix = FindingWarning, "chmod 0700 "+dir
		f.Message = fmt.Sprintf("%s has mode %04o: others can see what is in it", dir, st.Mode&0o7777)
	case int(st.Uid) != os.Geteuid():
		f.Status, f.Fix = FindingWarning, fmt.Sprintf("chown %d %s", os.Geteuid(), dir)
		f.Message = fmt.Sprintf("%s belongs to uid %d, and the daemon is uid %d", dir, st.Uid, os.Geteuid())
	}
	return f
}
