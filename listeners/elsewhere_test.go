package listeners_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// kernelNumbers are level and number of each row, of IPv4 and then of IPv6 where
// that has its own, copied from the kernel's headers by hand (asm-generic/
// socket.h, linux/tcp.h, linux/udp.h, linux/in.h, linux/in6.h): neither the
// table nor the constants of x/sys/unix are asked.
var kernelNumbers = map[string][4]int{
	"receive_buffer_bytes": {1, 8}, "send_buffer_bytes": {1, 7}, "traffic_class": {0, 1, 41, 67}, "linger": {1, 13},
	"reuse_port": {1, 15}, "tcp.no_delay": {6, 1}, "tcp.keepalive": {1, 9}, "tcp.keepalive_idle": {6, 4},
	"tcp.keepalive_interval": {6, 5}, "tcp.keepalive_count": {6, 6}, "tcp.user_timeout": {6, 18}, "tcp.defer_accept": {6, 9},

	"receive_buffer_force_bytes": {1, 8}, "send_buffer_force_bytes": {1, 7}, "receive_low_water_bytes": {1, 18},
	"max_pacing_rate": {1, 47}, "priority": {1, 12}, "mark": {1, 36}, "busy_poll": {1, 46}, "prefer_busy_poll": {1, 69},
	"dont_route": {1, 5}, "oob_inline": {1, 10}, "broadcast": {1, 6}, "no_checksum": {1, 11}, "transmit_rehash": {1, 74},
	"zero_copy": {1, 60}, "reuse_address": {1, 2}, "bind_to_device": {1, 62}, "unix.pass_credentials": {1, 16}, "unix.pass_rights": {1, 83},

	"ip.hop_limit": {0, 2, 41, 16}, "ip.min_hop_limit": {0, 21, 41, 73}, "ip.mtu_discover": {0, 10, 41, 23},
	"ip.free_bind": {0, 15, 41, 78}, "ip.transparent": {0, 19, 41, 75}, "ip.multicast_hop_limit": {0, 33, 41, 18},
	"ip.multicast_loop": {0, 34, 41, 19}, "ip.multicast_all": {0, 49, 41, 29}, "ip6.auto_flow_label": {41, 70},
	"ip6.dont_fragment": {41, 62}, "udp.segment_bytes": {17, 103}, "udp6.no_checksum_send": {17, 101}, "udp6.no_checksum_receive": {17, 102},

	"tcp.congestion": {6, 13}, "tcp.cork": {6, 3}, "tcp.quick_ack": {6, 12}, "tcp.max_segment_bytes": {6, 2},
	"buffer_lock": {1, 72}, "incoming_cpu": {1, 49}, "ip.multicast_interface": {0, 32, 41, 17},
	"tcp.window_clamp_bytes": {6, 10}, "tcp.not_sent_low_water_bytes": {6, 25}, "tcp.syn_count": {6, 7}, "tcp.fin_timeout": {6, 8},
	"tcp.fast_open": {6, 23}, "tcp.fast_open_no_cookie": {6, 34}, "tcp.save_syn": {6, 27}, "tcp.thin_linear_timeouts": {6, 16},
	"tcp.transmit_delay": {6, 37}, "tcp.rto_max": {6, 44}, "tcp.rto_min": {6, 45}, "tcp.delayed_ack_max": {6, 46},
}

// TestOptionsElsewhere sets every row on a live listener, and lets another
// process, which gets the descriptor over a Unix socket, say what the kernel has
// on it and on the next connection.
func TestOptionsElsewhere(t *testing.T) {
	if os.Getenv("SOCKMGR_TEST_READER") != "" {
		readOptions(t)
		return
	}
	ask := readerProcess(t)
	uris := tableURIs(t)
	for _, o := range listeners.Options {
		numbers, ok := kernelNumbers[o.Name]
		switch {
		case !o.OnSocket(), o.Effect == listeners.Rebind && o.Capability != "" && os.Getuid() != 0:
			continue
		case o.Name == "backlog", o.Name == "unix.mode", o.Name == "ip.multicast_groups": // no getsockopt has them: see TestBacklogElsewhere and TestMulticastGroups
			continue
		case !ok:
			t.Errorf("no number of %s", o.Name)
			continue
		case o.Capability != "" && os.Getuid() != 0:
			continue
		}
		p := probes[o.Name]
		for _, n := range o.Networks.Networks() {
			for _, uri := range uris[n] {
				if !has(o, uri) {
					continue
				}
				t.Run(o.Name+"/"+uri[:strings.Index(uri, "/")-1]+strings.Repeat("-dual", strings.Count(uri, "[::]")), func(t *testing.T) {
					h := newHost(t, "epoll", 0)
					options := ""
					if o.Effect == listeners.Rebind {
						options = o.Name + "=" + p.ask
					}
					l := h.open(spec(t, listeners.Echo{}, options, uri))
					if options == "" {
						h.tune(l, o.Name, p.ask)
					}
					elsewhere := func(where string, fd int, want int64) {
						t.Helper()
						level, number := numbers[0], numbers[1]
						if numbers[3] != 0 && isIPv6(fd) {
							level, number = numbers[2], numbers[3]
						}
						if got := decode(o, ask(t, fd, level, number)); got != want {
							t.Errorf("%s: in another process it is %d, want %d", where, got, want)
						}
					}
					elsewhere("listener", h.status(l).Sockets[0].FD, p.kernel)
					if n.Datagram() || p.restless || !o.OnConnection() && !o.Inherited {
						return
					}
					elsewhere("next connection", h.connOf(dial(t, loopback(h.addr(l, 0)))).FD, p.onChild())
				})
			}
		}
	}
}

// decode makes a number of what getsockopt returned: as probes have it.
func decode(o *listeners.Option, data []byte) int64 {
	switch {
	case o.Name == "tcp.congestion":
		if strings.TrimRight(string(data), "\x00") == "reno" {
			return 1
		}
		return 0
	case o.Name == "linger" && len(data) == 8: // struct linger
		if binary.NativeEndian.Uint32(data) == 0 {
			return -1
		}
		return int64(binary.NativeEndian.Uint32(data[4:]))
	case o.Name == "ip.multicast_interface" && string(data) == "\x7f\x00\x00\x01": // the address of lo
		return 1
	case len(data) == 4:
		return int64(int32(binary.NativeEndian.Uint32(data)))
	case len(data) == 8:
		return int64(binary.NativeEndian.Uint64(data))
	}
	return -2
}

// readerProcess starts a process that is passed descriptors and asks the kernel
// of them, and returns the question.
func readerProcess(t *testing.T) func(t *testing.T, fd, level, number int) []byte {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "reader")
	cmd := exec.Command(os.Args[0], "-test.run=^TestOptionsElsewhere$") //nolint:noctx // it ends with its socket
	cmd.Env = append(os.Environ(), "SOCKMGR_TEST_READER=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		unix.Close(pair[0])
		if err := cmd.Wait(); err != nil {
			t.Errorf("the other process: %v", err)
		}
	})
	return func(t *testing.T, fd, level, number int) []byte {
		t.Helper()
		if err := unix.Sendmsg(pair[0], fmt.Append(nil, level, " ", number), unix.UnixRights(fd), nil, 0); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 256)
		n, err := unix.Read(pair[0], answer)
		if err != nil {
			t.Fatal(err)
		}
		data, err := hex.DecodeString(string(answer[:n]))
		if err != nil {
			t.Fatalf("the other process says: %s", answer[:n])
		}
		return data
	}
}

// readOptions is the other process: for each descriptor that it is passed it
// answers what getsockopt(2) returned.
func readOptions(t *testing.T) {
	const from = 3
	for {
		text, control := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
		n, size, _, _, err := unix.Recvmsg(from, text, control, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		var level, number int
		messages, err := unix.ParseSocketControlMessage(control[:size])
		if _, scan := fmt.Sscan(string(text[:n]), &level, &number); err != nil || scan != nil || len(messages) != 1 {
			t.Fatal(err, scan, messages)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatal(err, fds)
		}
		data := make([]byte, 64)
		length := uint32(len(data))
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fds[0]), uintptr(level), uintptr(number),
			uintptr(unsafe.Pointer(&data[0])), uintptr(unsafe.Pointer(&length)), 0)
		answer := hex.EncodeToString(data[:length])
		if errno != 0 {
			answer = "errno " + errno.Error()
		}
		unix.Close(fds[0])
		if _, err := unix.Write(from, []byte(answer)); err != nil {
			t.Fatal(err)
		}
	}
}

// The backlog and the mode of a path are where other programs look for them.
func TestBacklogElsewhere(t *testing.T) {
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip(err)
	}
	path := filepath.Join(shortDir(t), "s")
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "unix://"+path))
	h.tune(l, "backlog", "33")
	h.tune(l, "unix.mode", "0640")
	out, err := exec.CommandContext(t.Context(), "ss", "-Hlxn").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	var limit string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			limit = f[3]
		}
	}
	out, err = exec.CommandContext(t.Context(), "stat", "-c", "%a", path).CombinedOutput()
	if err != nil || limit != "33" || strings.TrimSpace(string(out)) != "640" {
		t.Errorf("ss says %q, stat %s, %v", limit, out, err)
	}
}
