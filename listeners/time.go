package listeners

import "encoding/binary"

// Time says what time it is, as machines count (RFC 868): the seconds since
// 1900, once on each connection, which it then closes, and once for each
// datagram.
type Time struct{}

// Kind is HandlerSpec.Kind.
func (Time) Kind() string { return "time" }

// Datagram is HandlerSpec.Datagram.
func (Time) Datagram() bool { return true }

// Validate is HandlerSpec.Validate.
func (Time) Validate() error { return nil }

// New is HandlerSpec.New.
func (t Time) New() Handler { return t }

// Open answers a connection before it has said anything.
func (t Time) Open(p Peer) (Handler, error) {
	if _, err := t.tell(p); err != nil {
		return nil, err
	}
	return nil, errDone
}

// Handle answers a datagram. It is asked nothing on a connection that is done.
func (t Time) Handle(from Peer, p []byte) (int, error) {
	_, err := t.tell(from)
	return len(p), err
}

// since1900 is how many seconds that was before 1970.
const since1900 = 2_208_988_800

// tell sends 32 bits, which begin anew in February 2036.
func (Time) tell(p Peer) (int, error) {
	var seconds [4]byte
	binary.BigEndian.PutUint32(seconds[:], uint32(p.Now().Unix()+since1900))
	return p.Write(seconds[:])
}
