package listeners

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What durable connections need to go on in another process is in arenas: files
// in memory, of which the keeper has copies. Each has slots, one for a connection.
// A process that is killed has written what it has written; nothing is flushed.
//
//	arena: head | slot | slot | ...
//	slot:  page of records | buffer | buffer
const (
	arenaSlots = 256
	arenaHead  = 4 << 10
	slotHead   = 4 << 10
	slotBuffer = 64 << 10
	slotSize   = slotHead + 2*slotBuffer
	arenaSize  = arenaHead + arenaSlots*slotSize
	// maxArenas bounds the memory: 1 GiB, if all buffers of all connections were
	// full. A connection that says little has two pages.
	maxArenas = 32
	arenaMark = "sockmgr durable connections 1\n" // goes up with what is in a slot
)

// An arena is one file.
type arena struct {
	number int
	fd     int
	mem    []byte
}

// newArena makes an empty one.
func newArena(number int) (*arena, error) {
	fd, err := unix.MemfdCreate("sockmgr connections", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	a := &arena{number: number, fd: fd}
	err = os.NewSyscallError("ftruncate", unix.Ftruncate(fd, arenaSize))
	if err == nil { // who has a copy shall not take the memory away from under us (SIGBUS)
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
		err = os.NewSyscallError("fcntl F_ADD_SEALS", err)
	}
	if err == nil {
		err = a.open()
	}
	if err != nil {
		sysClose(fd)
		return nil, err
	}
	copy(a.mem, arenaMark)
	return a, nil
}

// oldArena is one that came back.
func oldArena(number, fd int) (*arena, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_GET_SEALS", err)
	}
	if st.Size != arenaSize || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("it has %d bytes, not %d that stay", st.Size, arenaSize)
	}
	a := &arena{number: number, fd: fd}
	if err := a.open(); err != nil {
		return nil, err
	}
	if string(a.mem[:len(arenaMark)]) != arenaMark {
		a.close()
		return nil, errors.New("it is of another version of sockmgr")
	}
	return a, nil
}

func (a *arena) open() (err error) {
	a.mem, err = unix.Mmap(a.fd, 0, arenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return os.NewSyscallError("mmap", err)
}

// close leaves it to who has a copy.
func (a *arena) close() {
	_ = unix.Munmap(a.mem) // it is mapped
	sysClose(a.fd)
}

// A slot is the part of an arena that one connection has.
type slot struct {
	*arena
	index int
}

// number is that of the slot among those of all arenas.
func (s slot) number() int { return s.arena.number*arenaSlots + s.index }

func (s slot) bytes() []byte {
	at := arenaHead + s.index*slotSize
	return s.mem[at : at+slotSize : at+slotSize]
}

// buffer is one of two.
func (s slot) buffer(i int) []byte {
	at := slotHead + i*slotBuffer
	return s.bytes()[at : at+slotBuffer : at+slotBuffer]
}

// The words of a slot. Each is written at once, so that it is never half of
// something.
const (
	wordLive     = 0  // 1: it is a connection's
	wordMoment   = 8  // which of the two moments holds: 0 or 1
	wordUpstream = 16 // 1: its upstream's record holds
	wordThere    = 24 // where in the client's stream the first buffer of a relay begins
	wordBack     = 32 // where in the upstream's stream the second one does
)

func (s slot) word(at int) uint64 { return atomic.LoadUint64(s.pointer(at)) }

func (s slot) setWord(at int, v uint64) { atomic.StoreUint64(s.pointer(at), v) }

func (s slot) pointer(at int) *uint64 {
	_ = s.bytes()[at+7]
	return (*uint64)(unsafe.Pointer(&s.bytes()[at])) // the words are aligned: the mapping begins with a page
}

// The records of a slot.
const (
	recordFixed    = 128
	recordUpstream = 1024
	recordMoments  = 2048 // two
	recordSize     = 1024
	// recordData is how many bytes a record has at most.
	recordData = 880
)

// putRecord writes a record; it reports whether there is room for it.
func (s slot) putRecord(at int, r interface{ encode(b []byte) []byte }) bool {
	b := s.bytes()[at : at+8+recordData]
	n := len(r.encode(b[8:8])) // in place
	if n > recordData {
		return false
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(n))
	binary.LittleEndian.PutUint32(b, checksum(b[4:8+n]))
	return true
}

// record reads one. It is a copy.
func (s slot) record(at int) ([]byte, error) {
	b := s.bytes()[at : at+8+recordData]
	n := int(binary.LittleEndian.Uint32(b[4:]))
	if n < 0 || n > recordData || checksum(b[4:8+n]) != binary.LittleEndian.Uint32(b) {
		return nil, errTorn
	}
	return append([]byte(nil), b[8:8+n]...), nil
}

// forget gives memory back that a busy connection has filled.
func (s slot) forget(touched [2]int) {
	for i, n := range touched {
		const page = 4 << 10
		if n > page {
			_ = unix.Madvise(s.buffer(i)[page:min((n+page-1)&^(page-1), slotBuffer)], unix.MADV_REMOVE) // or it stays
		}
	}
}
