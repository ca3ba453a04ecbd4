package listeners

import "time"

// Daytime says what time it is, as people write it (RFC 867): once on each
// connection, which it then closes, and once for each datagram.
type Daytime struct{}

// Kind is HandlerSpec.Kind.
func (Daytime) Kind() string { return "daytime" }

// Datagram is HandlerSpec.Datagram.
func (Daytime) Datagram() bool { return true }

// Validate is HandlerSpec.Validate.
func (Daytime) Validate() error { return nil }

// New is HandlerSpec.New.
func (d Daytime) New() Handler { return d }

// Open answers a connection before it has said anything.
func (d Daytime) Open(p Peer) (Handler, error) {
	if _, err := d.tell(p); err != nil {
		return nil, err
	}
	return nil, errDone
}

// Handle answers a datagram. It is asked nothing on a connection that is done.
func (d Daytime) Handle(from Peer, p []byte) (int, error) {
	_, err := d.tell(from)
	return len(p), err
}

// daytimeLayout is what inetd answers: RFC 867 leaves it open.
const daytimeLayout = time.ANSIC + "\r\n"

func (Daytime) tell(p Peer) (int, error) {
	var line [len(daytimeLayout)]byte
	return p.Write(p.Now().AppendFormat(line[:0], daytimeLayout))
}
