package manager

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// damaged is a store that cannot be read, with what a person can do.
type damaged struct {
	path string
	err  error
}

// Error says it in one line.
func (d *damaged) Error() string {
	return fmt.Sprintf("is damaged and left as it is: %v. Put a copy of the file back; or move it away (mv %s %s.damaged), start again with no listeners, "+
		"and give back with sockctl apply what sockctl export saved", d.err, d.path, d.path)
}

func (d *damaged) Unwrap() error { return d.err }

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
	file, err := openLocked(dir, s.path)
	if err != nil {
		return nil, err
	}
	err = s.check(file)
	if err == nil {
		err = s.guarded(func() (err error) { records, err = s.load(file); return err })
	}
	if err != nil {
		unlock(file)
		return nil, err
	}
	return records, nil
}

// check reads the file before bbolt does. It reads what is on the disk: what a
// failed fsync left in memory looks as if it were saved, until the power goes.
func (s *store) check(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("is %v and no regular file", info.Mode().Type())
	}
	if err := unix.Fdatasync(int(file.Fd())); err != nil {
		return fmt.Errorf("the disk is broken; the store is left as it is: %w", os.NewSyscallError("fdatasync", err))
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return os.NewSyscallError("fadvise", err)
	} // a file system that has no such cache
	if err := checkPages(file, info.Size()); err != nil {
		return &damaged{s.path, err}
	}
	return nil
}

// guarded runs what reads or writes pages that bbolt has mapped. A file that is
// cut off meanwhile, and a disk that cannot be read, are signals then; those
// and bbolt's own panics are errors here.
func (s *store) guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &damaged{s.path, fmt.Errorf("%v", r)}
		}
	}()
	return f()
}

const (
	// mapBytes of addresses are reserved for the file. When it outgrows them, bbolt
	// copies all that a transaction has changed so far to map more.
	mapBytes = 64 << 20
	// growBytes are added to the file when it is full.
	growBytes = 64 << 10
)

// load gives the file to bbolt and reads all that is in it.
func (s *store) load(file *os.File) (records []Record, err error) {
	s.db, err = bolt.Open(s.path, 0o600, &bolt.Options{
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return file, nil },
		InitialMmapSize: mapBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot be opened and is left as it is: %w", err)
	}
	s.db.AllocSize = growBytes
	s.file = file
	var format, revision int64
	err = s.db.View(func(tx *bolt.Tx) error {
		format, revision, records, err = s.read(tx)
		return err
	})
	if err != nil {
		_ = s.db.Close() // the first error is the one to tell
		return nil, err
	}
	s.revision.Store(revision)
	if format == storeFormat {
		return records, nil
	}
	if err := s.db.Update(func(tx *bolt.Tx) error { return s.sealed.put(tx.Bucket(bucketMeta), revision) }); err != nil {
		_ = s.db.Close()
		return nil, fmt.Errorf("is of format %d, and cannot be written in format %d: %w", format, storeFormat, err)
	}
	return records, nil
}

// read reads a store that is laid out well, and finds what is missing or is
// not as it was saved.
func (s *store) read(tx *bolt.Tx) (format, revision int64, records []Record, err error) {
	meta, all := tx.Bucket(bucketMeta), tx.Bucket(bucketListeners)
	if meta == nil || all == nil {
		return 0, 0, nil, &damaged{s.path, errors.New("it has no listeners and no meta data")}
	}
	format, revision = number(meta.Get(keyFormat)), number(meta.Get(keyRevision))
	if format > storeFormat {
		return format, 0, nil, fmt.Errorf("has format %d, of a newer sockmgr; this one knows %d. It is left as it is", format, storeFormat)
	}
	s.sealed = seal{}
	var saved [][2][]byte
	err = all.ForEach(func(name, value []byte) error {
		s.sealed.add(name, value)
		saved = append(saved, [2][]byte{bytes.Clone(name), bytes.Clone(value)}) // a file that is cut off is this goroutine's business
		return nil
	})
	if err == nil {
		if records, err = decodeAll(saved); err != nil {
			err = &damaged{s.path, err}
		}
	}
	switch saved := meta.Get(keySeal); {
	case err != nil:
	case format < 1, format == 1 && saved != nil:
		err = &damaged{s.path, fmt.Errorf("it says that it has format %d", format)}
	case format > 1 && !bytes.Equal(saved, s.sealed.bytes(format, revision)):
		err = &damaged{s.path, errors.New("listeners are missing, or are not as they were saved: the checksum of all is wrong")}
	}
	return format, revision, records, err
}
