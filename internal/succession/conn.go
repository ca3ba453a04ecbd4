package succession

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/handover"
)

const (
	maxMessage = 64 << 10
	// crowded is how long to wait when too many descriptors are on their way.
	crowded = time.Millisecond
)

// A Conn is one end.
type Conn struct{ conn *net.UnixConn }

// Pair returns the end of the old program, and that of the new one, for its
// child.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	c, err := open(fds[0])
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "heir"), nil
}

// Inherited returns the end that this program was started with; nil: it was
// started by nobody who wants to be succeeded.
func Inherited() (*Conn, error) {
	text, ok := os.LookupEnv(Variable)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(Variable) // fails for names that cannot be
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("$%s is %.20q: it is set by a daemon that is upgraded, and by nobody else", Variable, text)
	}
	unix.CloseOnExec(fd)
	return open(fd)
}

func open(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "succession")
	defer func() { _ = f.Close() }() // conn has another
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("it is not a Unix socket"), conn.Close())
	}
	return &Conn{c}, nil
}

// Close ends the conversation.
func (c *Conn) Close() error { return c.conn.Close() }

// Send sends a message with descriptors, of which the other end gets copies.
func (c *Conn) Send(m Message, timeout time.Duration, files ...int) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	end := time.Now().Add(timeout)
	if err := c.conn.SetWriteDeadline(end); err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	for {
		_, _, err := c.conn.WriteMsgUnix(text, rights, nil)
		if errors.Is(err, unix.ETOOMANYREFS) && time.Now().Before(end) { // until the other end has taken some
			timer := time.NewTimer(crowded)
			<-timer.C
			continue
		}
		return err
	}
}

// SendPart sends descriptors, however many, with a part of size bytes.
func (c *Conn) SendPart(files []int, size int, timeout time.Duration) error {
	for len(files) > handover.PerMessage {
		if err := c.Send(Message{Step: Files}, timeout, files[:handover.PerMessage]...); err != nil {
			return err
		}
		files = files[handover.PerMessage:]
	}
	return c.Send(Message{Step: Part, Size: size}, timeout, files...)
}

// ReceivePart returns the next part, with its descriptors; false: there is no more.
func (c *Conn) ReceivePart(timeout time.Duration) (size int, files []int, ok bool, err error) {
	for {
		m, some, err := c.Receive(timeout, Files, Part, Whole)
		files = append(files, some...)
		if err != nil || m.Step != Files {
			return m.Size, files, err == nil && m.Step == Part, err
		}
	}
}

// Receive waits for one of some steps. What the other end says has failed is a
// Refusal.
func (c *Conn) Receive(timeout time.Duration, want ...Step) (m Message, files []int, err error) {
	var end time.Time
	if timeout > 0 {
		end = time.Now().Add(timeout)
	}
	if err := c.conn.SetReadDeadline(end); err != nil {
		return m, nil, err
	}
	text, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*handover.PerMessage))
	n, k, flags, _, err := c.conn.ReadMsgUnix(text, rights)
	if err != nil {
		return m, nil, err
	}
	files, err = handover.Rights(rights[:k])
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0:
		err = errors.New("descriptors were lost on the way: raise the limit of open files (ulimit -n)")
	case n == 0:
		err = ErrGone
	default:
		if err = json.Unmarshal(text[:n], &m); err != nil {
			err = fmt.Errorf("it said %.40q, which makes no sense", text[:n])
		}
	}
	if err == nil && m.Step == Failed {
		err = Refusal(m.Error)
	}
	if err == nil {
		if slices.Contains(want, m.Step) {
			return m, files, nil
		}
		err = fmt.Errorf("it said %.40q, and not %q", m.Step, want)
	}
	for _, fd := range files {
		_ = unix.Close(fd) // they are copies
	}
	return m, nil, err
}

// ErrGone is that the other end is closed.
var ErrGone = errors.New("it has ended")

// A Refusal is what the other end says is wrong.
type Refusal string

// Error is the text.
func (r Refusal) Error() string { return string(r) }
