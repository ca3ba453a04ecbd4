package manager

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// storeFormat is what this program writes. A store of a higher one is refused,
// one of a lower is raised: format 1 had no seal.
const storeFormat = 2

var (
	bucketListeners = []byte("listeners")
	bucketMeta      = []byte("meta")
	keyFormat       = []byte("format")
	keyRevision     = []byte("revision")
	keySeal         = []byte("seal")
)

// A store keeps records. What it acknowledged is on disk.
type store struct {
	path     string // empty: in memory only
	db       *bolt.DB
	file     *os.File     // the db's
	mu       sync.Mutex   // held by who saves in memory, where run has nothing to do
	sealed   seal         // run only
	revision atomic.Int64 // written by who saves: run, or who holds mu
	work     chan *transaction
	done     chan struct{}
	text     []byte // for who saves: a record that is being written
	block    []byte // run only: where those of a transaction are
	failed   error  // what is on disk is not known: the file is not trusted again; or it is another process's
}

// change is one record to put, or to delete.
type change struct {
	name string
	put  *Record // nil: delete
}

// transaction is what is saved as a whole or not at all.
type transaction struct {
	changes []change
	result  chan error
}

// manyTogether are so many transactions that no more are waited for.
const manyTogether = 256

// manyChanges are so many in one transaction that pages are filled with them.
const manyChanges = 256

func number(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

func encode(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// encode returns a record as it is saved. bbolt keeps it until all is written, so
// that records share blocks of memory.
func (s *store) encode(r *Record) (value []byte, err error) {
	if s.text, err = r.appendJSON(s.text[:0]); err != nil {
		return nil, err
	}
	n := len(s.text)
	if s.db == nil { // only how long it is counts
		return s.text, nil
	}
	if cap(s.block)-len(s.block) < n {
		s.block = make([]byte, 0, max(n, blockBytes))
	}
	s.block = append(s.block, s.text...)
	return s.block[len(s.block)-n : len(s.block) : len(s.block)], nil
}

// blockBytes is one block: most changes need no more.
const blockBytes = 4 << 10

// commit saves changes as one, and sets the Revision of every record put. It
// returns once all is on disk.
func (s *store) commit(changes ...change) error {
	if len(changes) == 0 {
		return nil
	}
	if s.path == "" { // nothing is waited for
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.write(changes)
	}
	t := &transaction{changes, make(chan error, 1)}
	select {
	case s.work <- t:
		return <-t.result
	case <-s.done:
		return listeners.DaemonDraining
	}
}

// run commits, all that is waiting at once: many changes share one fsync.
func (s *store) run() {
	for t := range s.work {
		batch := s.gather([]*transaction{t})
		var changes []change
		for _, t := range batch {
			changes = append(changes, t.changes...)
		}
		err := s.write(changes)
		for _, t := range batch {
			t.result <- err
		}
	}
	close(s.done)
}

// gather adds what others have for the store. Who brought the first woke this
// goroutine, which runs before those that are about to bring more: they go first,
// as long as one of them comes.
func (s *store) gather(batch []*transaction) []*transaction {
	for had := 0; had < len(batch) && len(batch) < manyTogether; {
		had = len(batch)
		runtime.Gosched()
		batch = s.waiting(batch)
	}
	return batch
}

// waiting adds what can be had at once.
func (s *store) waiting(batch []*transaction) []*transaction {
	for {
		select {
		case t, ok := <-s.work:
			if !ok {
				return batch
			}
			batch = append(batch, t)
		default:
			return batch
		}
	}
}

func (s *store) write(batch []change) error {
	revision := s.revision.Load()
	put := func(c change) (value []byte, err error) {
		revision++
		if c.put == nil {
			return nil, nil
		}
		c.put.Revision = revision
		value, err = s.encode(c.put)
		c.put.size = len(value)
		return value, err
	}
	if s.failed != nil {
		return s.failed
	}
	if s.db == nil {
		for _, c := range batch {
			if _, err := put(c); err != nil {
				return err
			}
		}
		s.revision.Store(revision)
		return nil
	}
	next := s.sealed
	err := s.guarded(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			all := tx.Bucket(bucketListeners)
			if len(batch) >= manyChanges { // in the order of the tree: what is added is added at the end of a page
				batch = slices.SortedStableFunc(slices.Values(batch), func(a, b change) int { return strings.Compare(a.name, b.name) })
				all.FillPercent = 1
			}
			for _, c := range batch {
				value, err := put(c)
				if err != nil {
					return err
				}
				name := []byte(c.name)
				if old := all.Get(name); old != nil {
					next.remove(name, old)
				}
				if value == nil {
					err = all.Delete(name)
				} else {
					next.add(name, value)
					err = all.Put(name, value)
				}
				if err != nil {
					return err
				}
			}
			return next.put(tx.Bucket(bucketMeta), revision)
		})
	})
	if err != nil {
		return s.fault(err)
	}
	s.sealed = next
	s.revision.Store(revision)
	return nil
}

// fault is why a change was not saved. Where there was no room, no byte was
// written that counts, and there may be room later. After all else nobody
// knows what is on disk: the kernel forgets what it could not write, and says
// at the next fsync that all is well.
func (s *store) fault(err error) error {
	f := &listeners.Fault{
		Reason: listeners.StoreFailed, Err: err, Message: fmt.Sprintf("the change could not be saved in %s; nothing was changed", s.path),
		Fix: "make room on the disk, then try again", Meta: map[string]string{"path": s.path},
	}
	if path, ok := errors.AsType[*os.PathError](err); ok && path.Op == "write" && isFull(path.Err) {
		return f
	}
	f.Fix = "mend the disk, then restart the daemon: the file is not written again before. The change may be there then, as nobody knows what is on the disk"
	s.failed = f
	return f
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// close waits for what is being written. No save may run.
func (s *store) close() error {
	close(s.work)
	<-s.done
	if s.db == nil {
		return nil
	}
	if s.failed == nil {
		return s.db.Close()
	}
	unlock(s.file) // bbolt may hold its own lock for ever
	return nil
}

// String is what daemon info shows.
func (s *store) String() string {
	if s.path == "" {
		return "memory"
	}
	return "file:" + s.path
}
