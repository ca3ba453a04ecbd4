package listeners

import "fmt"

// maxDatagram is the most that a UDP datagram carries over IPv4.
const maxDatagram = 65507

// Reply sends fixed bytes: once on each connection, which it then closes, and
// once for each datagram.
type Reply struct {
	Payload  []byte `json:"payload"`
	KeepOpen bool   `json:"keepOpen,omitempty"` // drop what arrives instead of closing
}

// Kind is HandlerSpec.Kind.
func (*Reply) Kind() string { return "reply" }

// Datagram is HandlerSpec.Datagram.
func (r *Reply) Datagram() bool { return len(r.Payload) <= maxDatagram }

// Validate is HandlerSpec.Validate.
func (r *Reply) Validate() error {
	if len(r.Payload) == 0 {
		return &Violation{Field: "spec.handler.reply.payload", Message: fmt.Sprintf("is empty; a datagram takes up to %d bytes, a connection more", maxDatagram)}
	}
	return nil
}

// New is HandlerSpec.New.
func (r *Reply) New() Handler { return r }

// Open answers a connection before it has said anything.
func (r *Reply) Open(p Peer) (Handler, error) {
	if err := p.WriteShared(r.Payload); err != nil {
		return nil, err
	}
	if !r.KeepOpen {
		return repliedTo{}, errDone
	}
	return repliedTo{}, nil
}

// Handle answers a datagram.
func (r *Reply) Handle(from Peer, p []byte) (int, error) {
	return len(p), from.WriteShared(r.Payload)
}

// repliedTo drops what a connection sends after its answer.
type repliedTo struct{ Discard }
