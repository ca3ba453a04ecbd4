package listeners

// Echo sends back what arrives (RFC 862).
type Echo struct{}

// Kind is HandlerSpec.Kind.
func (Echo) Kind() string { return "echo" }

// Datagram is HandlerSpec.Datagram.
func (Echo) Datagram() bool { return true }

// Validate is HandlerSpec.Validate.
func (Echo) Validate() error { return nil }

// New is HandlerSpec.New.
func (e Echo) New() Handler { return e }

// Handle consumes what could be written.
func (Echo) Handle(from Peer, p []byte) (int, error) { return from.Write(p) }
