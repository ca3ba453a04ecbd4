package manager

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/sockmgr/sockmgr/listeners"
)

// storeFormat is what this program writes. A store of a higher one is refused.
const storeFormat = 1

var (
	bucketListeners = []byte("listeners")
	bucketMeta      = []byte("meta")
	keyFormat       = []byte("format")
	keyRevision     = []byte("revision")
)

// A store keeps records. What it acknowledged is on disk.
type store struct {
	path     string // empty: in memory only
	db       *bolt.DB
	revision atomic.Int64 // written by run only
	work     chan *transaction
	done     chan struct{}
	failed   error // an fsync failed: the file is not trusted again
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

// openStore opens the store in dir, making both where they are missing, and
// returns what is in it. A store that cannot be read is left as it is.
func openStore(dir string) (s *store, records []Record, err error) {
	s = &store{work: make(chan *transaction), done: make(chan struct{})}
	if dir != "" {
		s.path = filepath.Join(dir, "state.db")
		if records, err = s.open(dir); err != nil {
			return nil, nil, fmt.Errorf("state store %s: %w", s.path, err)
		}
	}
	go s.run()
	return s, records, nil
}

func (s *store) open(dir string) (records []Record, err error) {
	defer func() { // bbolt panics on pages that make no sense
		if r := recover(); r != nil {
			err = fmt.Errorf("is damaged and left as it is: %v", r)
		}
		if err != nil && s.db != nil {
			_ = s.db.Close() // the first error is the one to tell
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s.db, err = bolt.Open(s.path, 0o600, &bolt.Options{Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errors.New("another daemon has it open; give this one a --state of its own")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot be opened and is left as it is: %w", err)
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		var revision int64
		records, revision, err = load(tx)
		s.revision.Store(revision)
		return err
	})
	return records, err
}

// load reads all of a store, and makes its buckets if it is new.
func load(tx *bolt.Tx) (records []Record, revision int64, err error) {
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return nil, 0, err
	}
	all, err := tx.CreateBucketIfNotExists(bucketListeners)
	if err != nil {
		return nil, 0, err
	}
	switch format := number(meta.Get(keyFormat)); {
	case format == 0:
		err = meta.Put(keyFormat, encode(storeFormat))
	case format > storeFormat:
		err = fmt.Errorf("has format %d, of a newer sockmgr; this one knows %d. It is left as it is", format, storeFormat)
	}
	if err != nil {
		return nil, 0, err
	}
	err = all.ForEach(func(name, value []byte) error {
		r, err := decodeRecord(name, value)
		if err != nil {
			return fmt.Errorf("listener %q cannot be read; the store is left as it is: %w", name, err)
		}
		records = append(records, r)
		return nil
	})
	return records, number(meta.Get(keyRevision)), err
}

func decodeRecord(name, value []byte) (r Record, err error) {
	var old struct{ Stopped bool } // how it was said before there were pauses
	if err := errors.Join(json.Unmarshal(value, &r), json.Unmarshal(value, &old)); err != nil {
		return r, err
	}
	if old.Stopped {
		r.Desired = WantStopped
	}
	if r.Name != string(name) || r.Generation <= 0 || len(r.Spec.Listen) == 0 {
		return r, fmt.Errorf("it does not describe listener %q", name)
	}
	r.size = len(value)
	return r, checkName(r.Name)
}

func number(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

func encode(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// commit saves changes as one, and sets the Revision of every record put. It
// returns once all is on disk.
func (s *store) commit(changes ...change) error {
	if len(changes) == 0 {
		return nil
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
		batch := []*transaction{t}
		for more := true; more; {
			select {
			case t, ok := <-s.work:
				if more = ok; ok {
					batch = append(batch, t)
				}
			default:
				more = false
			}
		}
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

func (s *store) write(batch []change) error {
	revision := s.revision.Load()
	put := func(c change) (value []byte, err error) {
		revision++
		if c.put == nil {
			return nil, nil
		}
		c.put.Revision = revision
		value, err = json.Marshal(c.put)
		c.put.size = len(value)
		return value, err
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
	if s.failed != nil {
		return s.failed
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		all := tx.Bucket(bucketListeners)
		for _, c := range batch {
			value, err := put(c)
			if err == nil && value == nil {
				err = all.Delete([]byte(c.name))
			} else if err == nil {
				err = all.Put([]byte(c.name), value)
			}
			if err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyRevision, encode(revision))
	})
	if err != nil {
		s.failed = &listeners.Fault{
			Reason: listeners.StoreFailed, Err: err, Message: fmt.Sprintf("the change could not be saved in %s; nothing was changed", s.path),
			Fix: "mend the disk, then restart the daemon: the file is not written again before", Meta: map[string]string{"path": s.path},
		}
		return s.failed
	}
	s.revision.Store(revision)
	return nil
}

// close waits for what is being written. No save may run.
func (s *store) close() error {
	close(s.work)
	<-s.done
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// String is what daemon info shows.
func (s *store) String() string {
	if s.path == "" {
		return "memory"
	}
	return "file:" + s.path
}
