package listeners

import (
	"encoding/binary"
	"errors"
)

// encode is what a connection knows of the request that it reads.
func (c *httpConn) encode(b []byte) []byte {
	r := &c.req
	b = binary.LittleEndian.AppendUint64(b, uint64(r.left))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.room))
	b = binary.LittleEndian.AppendUint32(b, r.size)
	flags := 0
	for i, on := range []*bool{
		&c.served, &c.draining, &c.resting, &r.begun, &r.isHead, &r.http10, &r.host, &r.length, &r.chunked, &r.coded, &r.expects, &r.closes, &r.keepAlive,
	} {
		flags |= bit(*on, i)
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(flags))
	return append(b, byte(r.phase))
}

// decode is encode the other way.
func (c *httpConn) decode(b []byte) error {
	if len(b) == 0 { // nothing was consumed yet
		return nil
	}
	d := decoder{b: b}
	r := &c.req
	r.left, r.room, r.size = int64(d.number()), int64(d.number()), d.short()
	flags := binary.LittleEndian.Uint16(d.take(2))
	for i, on := range []*bool{
		&c.served, &c.draining, &c.resting, &r.begun, &r.isHead, &r.http10, &r.host, &r.length, &r.chunked, &r.coded, &r.expects, &r.closes, &r.keepAlive,
	} {
		*on = flags&(1<<i) != 0
	}
	r.phase = httpPhase(d.byte())
	switch {
	case d.end() != nil:
		return errTorn
	case r.phase >= httpDone, r.left < 0, r.phase == httpChunkEnd && (r.left < 1 || r.left > 2),
		r.left == 0 && (r.phase == httpFixed || r.phase == httpChunkData):
		return errors.New("it has a request that cannot be")
	}
	return nil
}
