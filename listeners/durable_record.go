package listeners

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The records of a durable connection, as they are in a slot. They come back from
// a process that was killed, by way of others: what is read is bounded, and never
// trusted to be in range.

var errTorn = errors.New("its record is not whole")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// lasting is what does not change.
type lasting struct {
	cookie   uint64
	listener string
	kind     string // of the handler
	config   uint64 // a hash of its configuration
	remote   netip.AddrPort
	proxied  netip.AddrPort // not valid: there was no header
	opened   int64          // nanoseconds since 1970
	v6       bool
	consumed uint64 // what the kernel has counted, less what the connection has: see positions
	written  uint64
}

func (r *lasting) encode(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.cookie)
	b = binary.LittleEndian.AppendUint64(b, r.config)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.opened))
	b = binary.LittleEndian.AppendUint64(b, r.consumed)
	b = binary.LittleEndian.AppendUint64(b, r.written)
	b = append(b, byte(bit(r.v6, 0)))
	b = appendText(b, r.listener)
	b = appendText(b, r.kind)
	b = appendText(b, addrText(r.remote))
	return appendText(b, addrText(r.proxied))
}

func (r *lasting) decode(b []byte) error {
	d := decoder{b: b}
	r.cookie, r.config, r.opened = d.number(), d.number(), int64(d.number())
	r.consumed, r.written = d.number(), d.number()
	r.v6 = d.byte()&1 != 0
	r.listener, r.kind = d.text(), d.text()
	r.remote, r.proxied = d.addr(), d.addr()
	return d.end()
}

// A moment is what is true between two steps of a handler: it has all that was
// received before used, and nothing after it, and what it wrote of that is sent.
// From there on the next process does the same again, since handlers do the same
// with the same bytes; what the peer has of that it does not get again.
type moment struct {
	used   uint64
	sent   uint64
	half   uint8  // the buffer that has what follows used
	offset uint32 // and where in it that begins
	ended  bool   // all was written: only the end is left
	opened bool   // the handler has begun
	reads  uint32
	writes uint32
	state  []byte // of the handler
}

func (m *moment) encode(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, m.used)
	b = binary.LittleEndian.AppendUint64(b, m.sent)
	b = binary.LittleEndian.AppendUint32(b, m.offset)
	b = binary.LittleEndian.AppendUint32(b, m.reads)
	b = binary.LittleEndian.AppendUint32(b, m.writes)
	b = append(b, m.half&1|byte(bit(m.ended, 1)|bit(m.opened, 2)))
	return append(b, m.state...)
}

func (m *moment) decode(b []byte) error {
	d := decoder{b: b}
	m.used, m.sent = d.number(), d.number()
	m.offset, m.reads, m.writes = d.short(), d.short(), d.short()
	flags := d.byte()
	m.half, m.ended, m.opened = flags&1, flags&2 != 0, flags&4 != 0
	m.state, d.b = d.b, nil
	if m.offset > slotBuffer {
		return errTorn
	}
	return d.end()
}

// beyond is what is true of the upstream of a relay.
type beyond struct {
	cookie   uint64
	consumed uint64 // as of lasting
	written  uint64
	from     uint64 // where in the client's stream what it gets begins, after the header
	sent     uint64 // what the client had been sent before
	pool     int    // of the upstream, by its place
	address  string // in the configuration
	server   string // that TLS asked for
	header   []byte // PROXY
}

func (r *beyond) encode(b []byte) []byte {
	for _, n := range []uint64{r.cookie, r.consumed, r.written, r.from, r.sent, uint64(r.pool)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = appendText(b, r.address)
	b = appendText(b, r.server)
	return appendText(b, string(r.header))
}

func (r *beyond) decode(b []byte) error {
	d := decoder{b: b}
	r.cookie, r.consumed, r.written, r.from, r.sent = d.number(), d.number(), d.number(), d.number(), d.number()
	r.pool = int(uint32(d.number()))
	r.address, r.server = d.text(), d.text()
	r.header = []byte(d.text())
	return d.end()
}

func bit(on bool, n int) int {
	if on {
		return 1 << n
	}
	return 0
}

func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), math.MaxUint16)]
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...)
}

func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// A decoder reads what it is given, and no more. After the first fault all that it
// returns is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, min(n, 8))
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) number() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }
func (d *decoder) short() uint32  { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) byte() byte     { return d.take(1)[0] }

func (d *decoder) text() string {
	n := int(binary.LittleEndian.Uint16(d.take(2)))
	p := d.take(n)
	if d.bad {
		return ""
	}
	return string(p)
}

func (d *decoder) addr() netip.AddrPort {
	s := d.text()
	if s == "" {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(s)
	d.bad = d.bad || err != nil
	return a
}

// end reports whether all was read, and no more.
func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return errTorn
	}
	return nil
}

// family is the address family of the socket.
func (r *lasting) family() uint8 {
	if r.v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
