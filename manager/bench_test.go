package manager_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// BenchmarkCreate opens and deletes listeners, in memory and with a store, one
// caller after the other and many at once.
func BenchmarkCreate(b *testing.B) {
	for _, store := range []string{"memory", "disk"} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", store, callers), func(b *testing.B) {
				dir := ""
				if store == "disk" {
					dir = b.TempDir()
				}
				m, err := manager.New(manager.Config{Poller: "epoll", StateDir: dir, Log: quiet})
				if err != nil {
					b.Fatal(err)
				}
				var n atomic.Int64
				b.SetParallelism(callers)
				b.ReportAllocs()
				work := func() error {
					name := fmt.Sprintf("l%d", n.Add(1))
					d := manager.Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: listeners.Echo{}}
					if _, _, err := m.Create(b.Context(), name, d, false); err != nil {
						return err
					}
					_, err := m.Delete(b.Context(), name, "", 0, false)
					return err
				}
				if callers == 1 {
					for b.Loop() {
						if err := work(); err != nil {
							b.Fatal(err)
						}
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := work(); err != nil {
								b.Error(err)
							}
						}
					})
				}
				b.StopTimer()
				if err := m.Shutdown(b.Context(), 0); err != nil {
					b.Error(err)
				}
			})
		}
	}
}

// BenchmarkApply makes 10,000 listeners with one Apply, beside the system calls
// that open the same sockets: x is how many times as much processor time it
// takes. A store's fsync is time, and no processor's. Each has an address of its
// own and they share a port: for port 0 the kernel alone takes 0.7 ms each once
// thousands are bound, whoever asks.
func BenchmarkApply(b *testing.B) {
	const count = 10_000
	addresses, port := make([][4]byte, count), freePort(b)
	for i := range addresses {
		addresses[i] = [4]byte{127, 1, byte(i / 250), byte(1 + i%250)}
	}
	for _, store := range []string{"memory", "disk"} {
		b.Run(store, func(b *testing.B) {
			var applied, bare time.Duration
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				bare += openBare(b, addresses, port)
				dir := ""
				if store == "disk" {
					dir = b.TempDir()
				}
				m, err := manager.New(manager.Config{Poller: "epoll", StateDir: dir, Log: quiet})
				if err != nil {
					b.Fatal(err)
				}
				wishes := make([]manager.Wish, count)
				for i, ip := range addresses {
					uri := fmt.Sprintf("tcp://%v:%d", netip.AddrFrom4(ip), port)
					wishes[i] = manager.Wish{Name: fmt.Sprintf("l%05d", i), Edit: func(d *manager.Draft) error {
						d.Listen, d.Handler = []string{uri}, listeners.Echo{}
						return nil
					}}
				}
				runtime.GC()
				begin := cpuTime(b)
				b.StartTimer()
				all, _, err := m.Apply(b.Context(), wishes, manager.ApplyOptions{Owner: "bench", Atomic: true})
				b.StopTimer()
				applied += cpuTime(b) - begin
				if err != nil || len(all) != count {
					b.Fatal(len(all), err)
				}
				if err := m.Shutdown(b.Context(), 0); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(applied)/float64(bare), "x")
			b.ReportMetric(float64(applied.Microseconds())/float64(b.N*count), "cpu-us/listener")
		})
	}
}

// openBare opens listening sockets as a program does that does nothing else, and
// returns what that took; it closes them.
func openBare(b *testing.B, addresses [][4]byte, port int) time.Duration {
	b.Helper()
	begin := cpuTime(b)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	fds := make([]int, 0, len(addresses))
	for _, ip := range addresses {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			fds = append(fds, fd)
			ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
			err = errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.Bind(fd, &unix.SockaddrInet4{Addr: ip, Port: port}),
				unix.Listen(fd, 4096),
				unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &ev))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	took := cpuTime(b) - begin
	for _, fd := range append(fds, epoll) {
		_ = unix.Close(fd)
	}
	return took
}

func freePort(b *testing.B) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
