package sockets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// Send is send(2): it returns what the kernel took. With all it waits until that
// is everything (sendall).
func (t *Table) Send(ctx context.Context, who Caller, id string, p []byte, all bool) (sent int, err error) {
	return t.send(ctx, who, id, p, all, false)
}

func (t *Table) send(ctx context.Context, who Caller, id string, p []byte, all, forever bool) (sent int, err error) {
	if len(p) > MaxPayload {
		return 0, tooLarge(len(p))
	}
	c := &call{words: "send", side: writing, forever: forever}
	c.try = func(s *Socket) error {
		n, err := s.sendmsg(p[sent:], nil)
		if err != nil {
			return err
		}
		sent += n
		if c.moved = true; all && sent < len(p) {
			return unix.EAGAIN // it would take no more now
		}
		return nil
	}
	err = t.run(ctx, who, id, c)
	if fault, ok := errors.AsType[*listeners.Fault](err); ok && all && fault.Meta != nil {
		fault.Meta["sent"] = strconv.Itoa(sent) // these are gone
	}
	return sent, err
}

// SendTo is sendto(2).
func (t *Table) SendTo(ctx context.Context, who Caller, id string, p []byte, uri string) (sent int, err error) {
	if len(p) > MaxPayload {
		return 0, tooLarge(len(p))
	}
	to, err := t.resolve(ctx, who, id, uri)
	if err != nil {
		return 0, err
	}
	err = t.run(ctx, who, id, &call{
		words: "send to " + uri, side: writing,
		try: func(s *Socket) error {
			sa, err := s.sockaddr(to[0])
			if err == nil {
				err = t.set.MayConnect(to[0])
			}
			if err == nil {
				sent, err = s.sendmsg(p, sa)
			}
			return err
		},
	})
	return sent, err
}

func tooLarge(n int) error {
	return invalid("payload", fmt.Sprintf("has %d bytes; one call takes at most %d", n, MaxPayload), unix.EMSGSIZE)
}

// sendmsg never raises SIGPIPE.
func (s *Socket) sendmsg(p []byte, to unix.Sockaddr) (int, error) {
	n, err := unix.SendmsgN(s.FD, p, nil, to, unix.MSG_NOSIGNAL)
	if s.conn != nil && err == nil {
		s.conn.Sent(n)
	}
	return n, os.NewSyscallError("sendmsg", err)
}
