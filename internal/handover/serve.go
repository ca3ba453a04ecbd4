package handover

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// strangers is how long one who is refused may take to say what it wants.
const strangers = time.Second

// maxCallers bounds how many are answered at once; others wait to be accepted.
const maxCallers = 8

// A Server answers on one socket.
type Server struct {
	// Enter finds out who calls, before anything is read, and returns the context
	// of the call. Who may not call is refused with its error.
	Enter func(ctx context.Context, conn *net.UnixConn) (context.Context, error)
	// Handle returns the descriptors that are asked for, each with its name. They
	// are closed once they have been sent. A refusal is an error, with its reason.
	Handle func(ctx context.Context, r Request) (names []string, files []int, err error)
	// Failed is told what went wrong with a call that nobody refused. It may be
	// called from several goroutines at once.
	Failed func(err error)
	// Refusal is what the caller is told of an error of Enter and Handle.
	Refusal func(error) (message, reason string)
}

// Serve answers until l is closed, and returns when all calls have ended.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) {
	var calls sync.WaitGroup
	defer calls.Wait()
	room := make(chan struct{}, maxCallers)
	for {
		conn, err := l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // of one connection, or no descriptor is left
			timer := time.NewTimer(10 * time.Millisecond)
			<-timer.C
			continue
		}
		room <- struct{}{}
		calls.Go(func() {
			defer func() { <-room }()
			defer func() { _ = conn.Close() }()
			if err := s.answer(ctx, conn); err != nil {
				s.Failed(err)
			}
		})
	}
}

func (s *Server) answer(ctx context.Context, conn *net.UnixConn) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	end := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // the daemon ends: who says nothing does not hold it up
	defer end()
	ctx, refused := s.Enter(ctx, conn)
	text := make([]byte, maxMessage)
	if refused != nil {
		text = text[:1] // it is not looked at, but who is hung up on while it writes does not hear why
		if err := conn.SetDeadline(time.Now().Add(strangers)); err != nil {
			return err
		}
	}
	n, _, _, _, err := conn.ReadMsgUnix(text, nil) // descriptors that come are closed by the kernel
	switch {
	case errors.Is(err, io.EOF), n == 0 && err == nil:
		return nil // it only wanted to know who answers: see Who
	case err != nil:
		return err
	}
	if refused != nil {
		return s.refuse(conn, refused)
	}
	var request Request
	if err := json.Unmarshal(text[:n], &request); err != nil {
		return errors.Join(err, send(conn, Reply{Error: err.Error(), Reason: "SPEC_INVALID"}, nil))
	}
	names, files, err := s.Handle(ctx, request)
	defer closeAll(files)
	if err != nil {
		return s.refuse(conn, err)
	}
	for len(files) > PerMessage {
		if err := send(conn, Reply{Names: names[:PerMessage], More: true}, files[:PerMessage]); err != nil {
			return err
		}
		names, files = names[PerMessage:], files[PerMessage:]
	}
	return send(conn, Reply{Names: names}, files)
}

func (s *Server) refuse(conn *net.UnixConn, err error) error {
	message, reason := s.Refusal(err)
	return send(conn, Reply{Error: message, Reason: reason}, nil)
}

func send(conn *net.UnixConn, r Reply, files []int) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	_, _, err = conn.WriteMsgUnix(text, rights, nil)
	return err
}
