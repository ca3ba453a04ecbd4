package listeners

import (
	"fmt"
	"runtime/debug"
)

// A panicked is what a connection is closed with whose handler panicked in a
// goroutine of its own.
type panicked struct {
	what  any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("the handler panicked: %v", p.what) }

// caught is what f returns, or that it panicked. Every goroutine that runs a
// handler's code begins with it: a panic ends one connection, not the daemon.
func caught(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicked{p, debug.Stack()}
		}
	}()
	return f()
}
