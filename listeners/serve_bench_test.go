package listeners_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// BenchmarkServe has client and loop in one process, so allocs/op counts both:
// it is 0.
func BenchmarkServe(b *testing.B) {
	for _, tt := range loads(b.TempDir()) {
		b.Run(strings.ReplaceAll(tt.name, " ", "-"), func(b *testing.B) {
			addr, stop := serve(b, tt.uri, tt.handler)
			defer stop()
			bindTo := ""
			if strings.HasPrefix(tt.uri, "unixgram") {
				bindTo = strings.TrimPrefix(tt.uri, "unixgram://") + "c"
			}
			fd := rawClient(b, addr, bindTo)
			defer unix.Close(fd)
			buf := make([]byte, 64<<10)
			exchange(b, fd, tt.request, buf, tt.answer)
			b.ReportAllocs()
			for b.Loop() {
				exchange(b, fd, tt.request, buf, tt.answer)
			}
		})
	}
}

// BenchmarkConnect is a connection with one echo.
func BenchmarkConnect(b *testing.B) {
	for _, uri := range []string{"tcp4://127.0.0.1:0", "unix://" + b.TempDir() + "/s"} {
		network, _, _ := strings.Cut(uri, ":")
		b.Run(network, func(b *testing.B) {
			addr, stop := serve(b, uri, listeners.Echo{})
			defer stop()
			ping, buf := []byte("x"), make([]byte, 1)
			for b.Loop() {
				fd := rawClient(b, addr, "")
				exchange(b, fd, ping, buf, 1)
				unix.Close(fd)
			}
		})
	}
}

// serve runs a listener on a loop of its own.
func serve(b *testing.B, uri string, handler listeners.HandlerSpec) (listeners.Address, func()) {
	b.Helper()
	spec, err := listeners.ParseSpec([]string{uri}, handler, nil)
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
	if err := l.Attach(set, &listeners.Counters{}); err != nil {
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
