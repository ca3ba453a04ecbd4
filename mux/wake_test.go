package mux

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A func that the loop cannot be woken for is not run later: whoever asked has
// been told that it failed.
func TestPostFails(t *testing.T) {
	p, err := NewPoller("epoll")
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLoop(p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wake := l.wake
	l.wake = -1
	ran := false
	if err := l.Do(context.Background(), func() error { ran = true; return nil }); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
	l.wake = wake
	ended := make(chan error)
	go func() { ended <- l.Run() }()
	if err := l.Do(context.Background(), func() error { return nil }); err != nil {
		t.Error(err)
	}
	l.Stop()
	if err := <-ended; err != nil || ran {
		t.Errorf("ran %v, %v", ran, err)
	}
}
