package manager

import (
	"crypto/sha256"
	"encoding/binary"

	bolt "go.etcd.io/bbolt"
)

// A seal is what shows that all records are there as they were saved: bbolt has
// no checksum of what is in its pages. The sum of all records' hashes is the
// same in whatever order they come, and a change costs no more than what it
// changes.
type seal struct {
	sum, count uint64
}

func recordHash(name, value []byte) uint64 {
	h := sha256.New()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name))))
	_, _ = h.Write(name)
	_, _ = h.Write(value)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

func (s *seal) add(name, value []byte) {
	s.sum += recordHash(name, value)
	s.count++
}

func (s *seal) remove(name, value []byte) {
	s.sum -= recordHash(name, value)
	s.count--
}

// bytes is what is stored of it, beside the format and the revision that it is
// of.
func (s *seal) bytes(format, revision int64) []byte {
	var b []byte
	for _, n := range []uint64{uint64(format), uint64(revision), s.sum, s.count} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	h := sha256.Sum256(b)
	return h[:16]
}

// put writes format, revision and seal.
func (s *seal) put(meta *bolt.Bucket, revision int64) error {
	if err := meta.Put(keyFormat, encode(storeFormat)); err != nil {
		return err
	}
	if err := meta.Put(keyRevision, encode(revision)); err != nil {
		return err
	}
	return meta.Put(keySeal, s.bytes(storeFormat, revision))
}
