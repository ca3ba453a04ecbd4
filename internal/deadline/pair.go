package deadline

import "time"

// A Pair is embedded in a net.Conn, and gives it the methods that set deadlines.
type Pair struct {
	ReadBy, WriteBy Deadline
	State           func() error // why the connection is closed; nil: it is open
}

// SetDeadline is net.Conn.SetDeadline.
func (p *Pair) SetDeadline(t time.Time) error {
	p.ReadBy.Set(t)
	p.WriteBy.Set(t)
	return p.State()
}

// SetReadDeadline is net.Conn.SetReadDeadline.
func (p *Pair) SetReadDeadline(t time.Time) error {
	p.ReadBy.Set(t)
	return p.State()
}

// SetWriteDeadline is net.Conn.SetWriteDeadline.
func (p *Pair) SetWriteDeadline(t time.Time) error {
	p.WriteBy.Set(t)
	return p.State()
}
