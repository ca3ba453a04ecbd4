package listeners_test

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// BenchmarkEcho sends 64 bytes and reads them back. Client and loop are both in
// this process, so allocs/op counts both: it is 0.
func BenchmarkEcho(b *testing.B) {
	for uri, kind := range map[string]int{"tcp://127.0.0.1:0": unix.SOCK_STREAM, "udp://127.0.0.1:0": unix.SOCK_DGRAM} {
		b.Run(uri[:3], func(b *testing.B) {
			addr, closeAll := serveEcho(b, uri)
			defer closeAll()
			fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.IP.Addr().As4(), Port: int(addr.IP.Port())}); err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := unix.Write(fd, buf); err != nil {
					b.Fatal(err)
				}
				if n, err := unix.Read(fd, buf); n != len(buf) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// serveEcho runs an echo listener on a loop of its own.
func serveEcho(b *testing.B, uri string) (listeners.Address, func()) {
	b.Helper()
	spec, err := listeners.ParseSpec([]string{uri}, listeners.Echo{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	l, err := listeners.Open("bench", spec)
	if err != nil {
		b.Fatal(err)
	}
	p, err := mux.NewPoller("epoll")
	if err != nil {
		b.Fatal(err)
	}
	loop, err := mux.NewLoop(p)
	if err != nil {
		b.Fatal(err)
	}
	set := listeners.NewSet(listeners.SetConfig{Loop: loop, Log: hclog.NewNullLogger()})
	if err := l.Attach(set, &listeners.Stats{}); err != nil {
		b.Fatal(err)
	}
	addr := l.Status(false).Bound[0]
	ended := make(chan error, 1)
	go func() { ended <- loop.Run() }()
	return addr, func() {
		err := loop.Do(context.Background(), func() error { l.Stop(0); return nil })
		loop.Stop()
		if err := errors.Join(err, <-ended, loop.Close()); err != nil {
			b.Error(err)
		}
	}
}
