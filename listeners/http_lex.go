package listeners

import (
	"encoding/binary"
	"math/bits"
)

// httpField splits a header or trailer line (RFC 9112 5). A name is a token,
// so a folded line and a space before the colon are not ok.
func httpField(line []byte) (name, value []byte, ok bool) {
	i := 0
	for i < len(line) && httpClass[line[i]]&httpTokenByte != 0 {
		i++
	}
	if i == 0 || i == len(line) || line[i] != ':' {
		return nil, nil, false
	}
	return line[:i], line[i+1:], true
}

// httpTrim takes optional white space off both ends.
func httpTrim(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// httpIs compares without regard to case. s has no control characters, so
// that setting the bit cannot make one of another byte.
func httpIs(s []byte, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i, b := range s {
		if b|0x20 != lower[i] {
			return false
		}
	}
	return true
}

func httpDigit(b byte) bool { return b-'0' <= 9 }

// httpClass says what each byte may be part of.
var httpClass = func() (class [256]uint8) {
	mark := func(bits uint8, set string) {
		for _, b := range []byte(set) {
			class[b] |= bits
		}
	}
	const alnum = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	mark(httpTokenByte, alnum+"!#$%&'*+-.^_`|~") // RFC 9110 5.6.2
	mark(httpHostByte, alnum+"-._~!$&'()*+,;=%:[]")
	return class
}()

const (
	httpTokenByte = 1 << iota
	httpHostByte  // RFC 3986 3.2.2, with port
)

func httpToken[S ~string | ~[]byte](s S) bool {
	for i := range len(s) {
		if httpClass[s[i]]&httpTokenByte == 0 {
			return false
		}
	}
	return len(s) > 0
}

// httpScan returns where the first control character of p is, or the first
// byte less than low, which is ' ' or '!'. Tabs may stand where spaces may. It
// takes eight bytes at a time: a byte less than low sets its top bit in
// x - lows and had none in x; only such a byte borrows from the next, so the
// first one found is real.
func httpScan(p []byte, low byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	lows := uint64(low) * ones
	i := 0
	for i+8 <= len(p) {
		x := binary.LittleEndian.Uint64(p[i:])
		del := x ^ 0x7f*ones
		found := ((x-lows)&^x | (del-ones)&^del) & tops
		if found == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(found) / 8
		if p[i] != '\t' || low != ' ' {
			return i
		}
		i++
	}
	for i < len(p) && (p[i] >= low && p[i] != 0x7f || p[i] == '\t' && low == ' ') {
		i++
	}
	return i
}
