package fdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Waits for a service manager that does not read, or does not answer.
const (
	sendTimeout    = 5 * time.Second
	barrierTimeout = 5 * time.Second
)

// maxWaiting bounds what is to be stored while the service manager does not read.
const maxWaiting = 16 << 10

// A Client sends to one service manager. Its methods but Wait and Close never
// wait: a goroutine of its own sends, in order. To one that does not read it is
// sent once that reads again.
type Client struct {
	fail func(error) // is told of each kind of failure once; set once in Dial
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	queue   []message
	pending int    // in the queue, or being sent
	removed uint64 // how often something was to be removed
	settled uint64 // of those, how many are known to be done, or lost
	closed  bool
	stalled bool   // the service manager does not read
	names   *names // that the service manager has; nil: they have no bound

	socket string // the goroutine's while something is pending, as all below
	fd     int    // -1: not connected
	failed error  // what was told last
	lost   bool   // nothing is sent any more
}

// message is one to send, or a mark in the row of them.
type message struct {
	text    string
	fd      int             // -1: none; else the message's own
	reached chan struct{}   // a mark: closed when all before it was sent
	barrier uint64          // and so many were removed; 0: none is waited for
	socket  string          // from here on to this one
	hold    <-chan struct{} // what follows is sent once it is closed
}

// Dial makes a Client of the socket that NOTIFY_SOCKET names. Failures to send
// are told to fail: nothing can be done about them but to say so. It must not
// wait.
func Dial(socket string, fail func(error)) *Client {
	c := &Client{socket: socket, fail: fail, wake: make(chan struct{}, 1), done: make(chan struct{}), fd: -1}
	go c.run()
	return c
}

// Store leaves a copy of fd with the service manager.
func (c *Client) Store(name string, fd int) {
	if !c.store(name, fd, maxNamesTogether) {
		c.fail(fmt.Errorf("no room for %s: either too much waits for a service manager that does not read, or the names of all that is kept are one variable of the next daemon, which the kernel bounds to 128 KiB; `sockmgr supervise` has no such bound", name))
	}
}

// StoreIfRoom is Store for what there may be many of: it takes half of the room
// for names at most, and reports whether there was some.
func (c *Client) StoreIfRoom(name string, fd int) bool {
	return c.store(name, fd, maxNamesTogether/2)
}

func (c *Client) store(name string, fd, room int) bool {
	// FDPOLL=0, or a bound socket that does not listen yet is let go (EPOLLHUP).
	m := message{text: "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, fd: fd}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.names.add(name, room) {
		return false
	}
	if c.sendNow(m) {
		return true
	}
	if c.pending >= maxWaiting {
		c.names.remove(name)
		return false
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		c.names.remove(name)
		c.fail(os.NewSyscallError("fcntl F_DUPFD", err))
		return true // it was told
	}
	m.fd = dup
	c.addLocked(m)
	return true
}

// Remove takes the copy away.
func (c *Client) Remove(name string) {
	m := message{text: "FDSTOREREMOVE=1\nFDNAME=" + name, fd: -1}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed++
	c.names.remove(name)
	if !c.sendNow(m) {
		c.addLocked(m)
	}
}

// sendNow sends if that does not wait, and nothing else waits to be sent: what is
// stored is safe when it returns. It reports whether it did.
func (c *Client) sendNow(m message) bool {
	if c.pending > 0 || c.fd < 0 || c.lost || c.closed {
		return false
	}
	var rights []byte
	if m.fd >= 0 {
		rights = unix.UnixRights(m.fd)
	}
	return unix.Sendmsg(c.fd, []byte(m.text), rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) == nil // or else it is tried again, and told
}

// Notify sends a state, such as READY=1.
func (c *Client) Notify(state string) { c.add(message{text: state, fd: -1}) }

// Hold sends what follows only once until is closed.
func (c *Client) Hold(until <-chan struct{}) { c.add(message{hold: until, fd: -1}) }

// Redirect sends everything from now on to another service manager, one to which
// names have no bound.
func (c *Client) Redirect(socket string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names = nil
	c.addLocked(message{socket: socket, fd: -1})
}

// BoundNames has the names of what is stored fit in one variable, as systemd
// hands them over. There are some already.
func (c *Client) BoundNames(already []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names = newNames(already)
}

func (c *Client) add(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(m)
}

func (c *Client) addLocked(m message) {
	if c.closed {
		if m.fd >= 0 {
			_ = unix.Close(m.fd)
		}
		return
	}
	c.queue = append(c.queue, m)
	c.pending++
	c.poke()
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default: // it has been woken already
	}
}

// Wait returns when what was asked before has been sent and, if something was
// removed, when the service manager has closed it: until then it still has the
// address.
func (c *Client) Wait(ctx context.Context) error {
	mark := message{fd: -1, reached: make(chan struct{})}
	c.mu.Lock()
	if c.removed > c.settled {
		mark.barrier = c.removed
	}
	idle, stalled := c.closed || c.pending == 0 && mark.barrier == 0, c.stalled
	c.mu.Unlock()
	switch {
	case idle:
		return nil
	case stalled: // whoever comes does not wait as long as the first
		return errStalled
	}
	c.add(mark)
	select {
	case <-mark.reached:
		return nil
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errStalled = errors.New("the service manager does not read what it is sent")

// stall notes that, and tells it once; it reports whether to go on trying.
func (c *Client) stall(is bool) (goOn bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if is && !c.stalled && !c.closed {
		c.fail(errStalled)
	}
	c.stalled = is
	return !c.closed
}

// Close sends what waits to be sent, and ends.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.poke()
	<-c.done
}

func (c *Client) run() {
	defer close(c.done)
	for range c.wake {
		for {
			c.mu.Lock()
			queue := c.queue
			c.queue = nil
			ended := c.closed && len(queue) == 0
			c.mu.Unlock()
			if ended {
				c.disconnect()
				return
			}
			if len(queue) == 0 {
				break
			}
			for _, m := range queue {
				if c.act(m); c.failed != nil && c.isClosed() {
					c.lost = true // nobody waits for each of them to fail
				}
			}
		}
	}
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// act sends one message; it is called by run only.
func (c *Client) act(m message) {
	var err error
	switch {
	case m.hold != nil:
		<-m.hold
	case m.socket != "":
		c.disconnect()
		c.socket, c.failed = m.socket, nil
	case m.barrier > 0 && !c.lost:
		err = c.barrier() // of a service manager that is gone nothing is to be waited for
	case c.lost:
	case m.reached == nil:
		err = c.send(m.text, m.fd)
	}
	if m.fd >= 0 {
		_ = unix.Close(m.fd)
	}
	c.mu.Lock()
	c.pending--
	c.settled = max(c.settled, m.barrier)
	c.mu.Unlock()
	if m.reached != nil {
		close(m.reached)
	}
	if err != nil && (c.failed == nil || c.failed.Error() != err.Error()) {
		c.failed = err
		c.fail(err)
	} else if err == nil && m.text != "" {
		c.failed = nil
	}
}

// barrier returns when the service manager has done all that was sent before: it
// closes the pipe then (sd_notify_barrier(3)), or ends.
func (c *Client) barrier() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	defer func() { _ = unix.Close(p[0]) }()
	err := c.send("BARRIER=1", p[1])
	_ = unix.Close(p[1])
	if err != nil {
		return err
	}
	for end := time.Now().Add(barrierTimeout); ; {
		left := time.Until(end)
		if left <= 0 {
			return errors.New("the service manager does not answer BARRIER=1")
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p[0]), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return nil
		}
	}
}

// send blocks while the receiver's queue is full. Close ends that.
func (c *Client) send(text string, fd int) error {
	if c.fd < 0 {
		if err := c.connect(); err != nil {
			return err
		}
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for {
		err := unix.Sendmsg(c.fd, []byte(text), rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && c.stall(true) {
			continue
		}
		if err == nil {
			c.stall(false)
		} else {
			c.disconnect() // the next message tries again
			return os.NewSyscallError("sendmsg", err)
		}
		return nil
	}
}

func (c *Client) connect() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	timeout := unix.NsecToTimeval(int64(sendTimeout))
	err = errors.Join(
		os.NewSyscallError("setsockopt SO_SNDTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)),
		os.NewSyscallError("connect", unix.Connect(fd, &unix.SockaddrUnix{Name: c.socket})), // @ is an abstract name there
	)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	c.fd = fd
	return nil
}

func (c *Client) disconnect() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}
