package handover

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxCallers bounds how many are answered at once; others wait to be accepted.
const maxCallers = 8

// A Server answers on one socket.
type Server struct {
	// Allow says whether a user may call.
	Allow func(uid uint32) bool
	// Handle returns the descriptors that are asked for, each with its name. They
	// are closed once they have been sent. A refusal is an error, with its reason.
	Handle func(ctx context.Context, r Request) (names []string, files []int, err error)
	// Failed is told what went wrong with a call. It may be called from several
	// goroutines at once.
	Failed func(uid uint32, err error)
	// Reason is that of an error of Handle.
	Reason func(error) string
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
			if uid, err := s.answer(ctx, conn); err != nil {
				s.Failed(uid, err)
			}
		})
	}
}

func (s *Server) answer(ctx context.Context, conn *net.UnixConn) (uid uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	end := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // the daemon ends: who says nothing does not hold it up
	defer end()
	cred, err := credentials(conn)
	if err != nil {
		return 0, err
	}
	if !s.Allow(cred.Uid) {
		err := errors.New("only root and the daemon's own user may have its sockets")
		return cred.Uid, errors.Join(err, send(conn, Reply{Error: err.Error(), Reason: "ROLE_MISSING"}, nil))
	}
	text := make([]byte, maxMessage)
	n, _, _, _, err := conn.ReadMsgUnix(text, nil) // descriptors that come are closed by the kernel
	if err != nil {
		return cred.Uid, err
	}
	var request Request
	if err := json.Unmarshal(text[:n], &request); err != nil {
		return cred.Uid, errors.Join(err, send(conn, Reply{Error: err.Error(), Reason: "SPEC_INVALID"}, nil))
	}
	names, files, err := s.Handle(ctx, request)
	defer closeAll(files)
	if err != nil {
		return cred.Uid, send(conn, Reply{Error: err.Error(), Reason: s.Reason(err)}, nil)
	}
	for len(files) > PerMessage {
		if err := send(conn, Reply{Names: names[:PerMessage], More: true}, files[:PerMessage]); err != nil {
			return cred.Uid, err
		}
		names, files = names[PerMessage:], files[PerMessage:]
	}
	return cred.Uid, send(conn, Reply{Names: names}, files)
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
