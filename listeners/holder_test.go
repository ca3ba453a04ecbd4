package listeners_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// Who has an address is named: here it is this process, with the inode of the
// socket that is in the way.
func TestHolder(t *testing.T) {
	h, dir := newHost(t, "epoll", 0), shortDir(t)
	if err := os.Mkdir(dir+"/a  b", 0o700); err != nil {
		t.Fatal(err)
	}
	held := []string{
		"tcp://127.0.0.1:0", "tcp6://[::1]:0", "tcp://[::]:0", "tcp4://0.0.0.0:0",
		"udp://127.0.0.1:0", "udp6://[::1]:0", "udp://[::]:0",
		"unix://" + dir + "/s", "unixgram://" + dir + "/g", "unixpacket://" + dir + "/p", "unix://" + dir + "/a  b/c d", "unix://@sockmgr holder", "unixgram://@sockmgr-holder",
	}
	l := h.open(spec(t, listeners.Echo{}, "", held...))
	comm := listeners.CommandOf(os.Getpid())
	for i, s := range h.status(l).Sockets {
		for _, a := range []listeners.Address{s.Local, wide(s.Local)} {
			_, err := listeners.Open("second", spec(t, listeners.Echo{}, "", a.String()))
			var f *listeners.Fault
			if !errors.As(err, &f) || f.Reason != listeners.AddressInUse || !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%v: %v", a, err)
				continue
			}
			if f.Meta["holder_pid"] != fmt.Sprint(os.Getpid()) || f.Meta["holder_command"] != comm || f.Meta["holder_inode"] != fmt.Sprint(s.Inode) || f.Meta["address"] != a.String() {
				t.Errorf("%v is held by inode %d: %v, %v", a, s.Inode, err, f.Meta)
			}
			if !strings.Contains(err.Error(), a.String()) || f.Fix == "" {
				t.Errorf("%v: %v", a, err)
			}
		}
		if !l.Holds(fmt.Sprint(s.Inode)) || l.Holds("1") {
			t.Errorf("socket %d is not its own", i)
		}
	}
}

// wide is all addresses with the port of a, which bind to one of them keeps
// from being bound.
func wide(a listeners.Address) listeners.Address {
	if !a.IP.IsValid() {
		return a
	}
	host := "0.0.0.0"
	if a.IP.Addr().Is6() {
		host = "::"
	}
	a.IP = netip(host, int(a.IP.Port()))
	return a
}

// The one that is named is the one in the way, not one beside it.
func TestHolderOfOtherVersion(t *testing.T) {
	noLeaks(t)
	v4, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer v4.Close()
	port := v4.Addr().(*net.TCPAddr).Port
	v6, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", port))
	if err != nil {
		t.Skip(err)
	}
	defer v6.Close()
	for uri, l := range map[string]net.Listener{"tcp4://0.0.0.0:%d": v4, "tcp6://[::]:%d": v6} {
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		var f *listeners.Fault
		if err := openErr(t, fmt.Sprintf(uri, port)); !errors.As(err, &f) || f.Meta["holder_inode"] != fmt.Sprint(st.Ino) {
			t.Errorf("%s is held by inode %d: %v", uri, st.Ino, err)
		}
	}
}
