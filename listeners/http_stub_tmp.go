package listeners

type HTTP struct {
	Status  int
	Headers map[string]string
	Body    []byte
}

func (*HTTP) Kind() string    { return "http" }
func (*HTTP) Datagram() bool  { return false }
func (*HTTP) Validate() error { return nil }
func (*HTTP) New() Handler    { return Discard{} }
