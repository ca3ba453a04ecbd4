package sockets

import (
	"github.com/sockmgr/sockmgr/listeners"
)

// Role is what a socket is for.
type Role uint8

// The roles.
const (
	Created   Role = iota // neither bound nor connected
	Listening             // bound
	Accepted
	Outbound // connected
)

// Status is what is true of a socket now.
type Status struct {
	listeners.SocketStatus
	Role       Role
	Owner      string // empty: it is no client's
	Listener   string // that it is of
	Connection uint64 // that it is; 0: none
	Remote     listeners.Address
	TCP        *listeners.TCPInfo
	Congestion string
}

func (s *Socket) status(full bool) Status {
	st := Status{SocketStatus: s.Status(s.want), Role: s.role, Owner: s.owner, Remote: s.Remote()}
	if !st.Remote.IP.IsValid() && st.Remote.Path == "" && s.peer != (listeners.Address{}) {
		st.Remote = s.peer // it has gone
	}
	if s.conn != nil {
		st.Listener, st.Connection = s.conn.Listener(), s.id
	}
	for _, d := range s.unread {
		st.Queue.UserReceive += uint64(len(d.what.Payload))
	}
	if full {
		st.TCP, st.Congestion = s.TCPInfo()
	}
	return st
}
