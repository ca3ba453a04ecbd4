package listeners

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Why a connection was closed before a route was chosen.
var errTLS = errors.New("TLS")

// What RFC 8446 says of records and of a ClientHello.
const (
	recordHead     = 5 // type, version, length
	recordMost     = 1 << 14
	recordShake    = 22
	shakeHead      = 4 // type, length
	shakeHello     = 1
	helloRandom    = 2 + 32 // legacy_version, random
	extServerName  = 0
	nameOfHost     = 0
	maxHello       = 32 << 10 // with the heads of its records; those in use take up to some thousand
	maxServerName  = 255
	protocolOfSSL3 = 3 // major version, of TLS too
)

// unrecognizedName is a fatal alert (RFC 6066, 3).
const unrecognizedName = "\x15\x03\x01\x00\x02\x02\x70"

// A hello is a ClientHello that comes in pieces. What is read of it is looked at
// once, however small the pieces are.
type hello struct {
	raw  []byte // all that came
	at   int    // of raw: where the record begins that is not whole yet
	body []byte // the message, without the heads of its records
}

// add takes the next piece. Once the hello is whole it says which server is
// asked for, in lower case; empty is none.
func (h *hello) add(p []byte) (name string, whole bool, err error) {
	h.raw = append(h.raw, p...)
	for {
		record, err := nextRecord(h.raw[h.at:])
		if err != nil {
			return "", false, err
		}
		if record == nil {
			break
		}
		h.at += recordHead + len(record)
		h.body = append(h.body, record...)
		if len(h.body) < shakeHead {
			continue
		}
		if h.body[0] != shakeHello {
			return "", false, fmt.Errorf("it begins with handshake message %d, not with a ClientHello", h.body[0])
		}
		size := shakeHead + int(binary.BigEndian.Uint32(h.body)&0xffffff)
		if size > maxHello {
			return "", false, fmt.Errorf("a ClientHello of %d bytes is too long; at most %d are read", size, maxHello)
		}
		if len(h.body) >= size {
			name, err := serverName(h.body[shakeHead:size])
			return name, err == nil, err
		}
	}
	if len(h.raw) > maxHello {
		return "", false, fmt.Errorf("a ClientHello has no end within %d bytes", maxHello)
	}
	return "", false, nil
}

// nextRecord is what the record carries that p begins with; nil when it is not
// whole yet.
func nextRecord(p []byte) ([]byte, error) {
	switch {
	case len(p) > 0 && p[0] != recordShake:
		return nil, errNoHello
	case len(p) > 1 && p[1] != protocolOfSSL3:
		return nil, errNoHello
	case len(p) < recordHead:
		return nil, nil
	}
	n := int(binary.BigEndian.Uint16(p[3:]))
	switch {
	case n == 0 || n > recordMost:
		return nil, fmt.Errorf("a record of %d bytes: from 1 to %d are allowed", n, recordMost)
	case len(p) < recordHead+n:
		return nil, nil
	}
	return p[recordHead:][:n], nil
}

var (
	errNoHello  = errors.New("what came is no TLS handshake")
	errBadHello = errors.New("the ClientHello is malformed")
	errBadName  = errors.New("the server name is malformed")
)

// A wire is read from the front. It is nil once something was not there.
type wire []byte

// take is the next n bytes; nil when there are fewer.
func (w *wire) take(n int) wire {
	if n > len(*w) {
		*w = nil
		return nil
	}
	p := (*w)[:n:n]
	*w = (*w)[n:]
	return p
}

// number is the next n bytes as one; -1 when there are fewer.
func (w *wire) number(n int) (v int) {
	p := w.take(n)
	if p == nil {
		return -1
	}
	for _, b := range p {
		v = v<<8 | int(b)
	}
	return v
}

// vector is what a length of n bytes says comes next; nil when there is less.
func (w *wire) vector(n int) wire {
	size := w.number(n)
	if size < 0 {
		return nil
	}
	return w.take(size)
}

// serverName reads a ClientHello (RFC 8446, 4.1.2). What it does not know, such
// as GREASE and an encrypted hello, it passes over: the name is the outer one.
func serverName(w wire) (string, error) {
	if w.take(helloRandom) == nil || w.vector(1) == nil { // legacy_session_id
		return "", errBadHello
	}
	suites, methods := w.vector(2), w.vector(1)
	if len(suites) == 0 || len(suites)%2 != 0 || len(methods) == 0 {
		return "", errBadHello
	}
	if len(w) == 0 {
		return "", nil // of TLS 1.2 and before: there are no extensions
	}
	name, seen := "", false
	list := w.vector(2)
	if list == nil || len(w) > 0 {
		return "", errBadHello
	}
	for len(list) > 0 {
		kind, data := list.number(2), list.vector(2)
		if kind < 0 || data == nil {
			return "", errBadHello
		}
		if kind != extServerName {
			continue
		}
		if seen { // two would let each side choose another
			return "", errBadHello
		}
		seen = true
		var err error
		if name, err = hostName(data); err != nil {
			return "", err
		}
	}
	return name, nil
}

// hostName reads a ServerNameList (RFC 6066, 3).
func hostName(w wire) (name string, err error) {
	list := w.vector(2)
	if len(list) == 0 || len(w) > 0 {
		return "", errBadName
	}
	for len(list) > 0 {
		kind, text := list.number(1), list.vector(2)
		switch {
		case kind < 0 || text == nil, kind == nameOfHost && name != "":
			return "", errBadName
		case kind != nameOfHost:
			continue
		}
		if name = string(text); !isPlainName(name) {
			return "", errBadName
		}
	}
	return strings.TrimSuffix(strings.ToLower(name), "."), nil
}

// isPlainName keeps out of logs and answers what no name has.
func isPlainName(name string) bool {
	for _, b := range []byte(name) {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return name != "" && len(name) <= maxServerName
}
