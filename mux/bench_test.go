package mux

import (
	"testing"
)

// What it costs to have the loop do something, and wait for that.
func BenchmarkDo(b *testing.B) {
	p, err := NewPoller("epoll")
	if err != nil {
		b.Fatal(err)
	}
	l, err := NewLoop(p)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	for b.Loop() {
		if err := l.Do(b.Context(), func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	l.Stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}
