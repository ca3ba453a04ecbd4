package manager

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// What an upgrade does with the store. Nothing is saved meanwhile.

// StoreAt is what Manager.Store says of one in a directory; empty: in memory.
func StoreAt(dir string) string {
	if dir == "" {
		return (&store{}).String()
	}
	return (&store{path: filepath.Join(dir, "state.db")}).String()
}

// snapshot writes a copy; it writes nothing of a store in memory. Nothing may be
// saved meanwhile.
func (s *store) snapshot(w io.Writer) error {
	switch {
	case s.failed != nil:
		return s.failed
	case s.db == nil:
		return nil
	}
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	_, err = io.Copy(w, io.NewSectionReader(s.file, 0, info.Size()))
	return err
}

// checkStore reads a copy as it would read the store, and returns what is in it.
// The file is closed.
func checkStore(file *os.File) (records []Record, err error) {
	s := &store{path: "state.db"}
	if err := s.check(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	err = s.guarded(func() (err error) { records, err = s.load(file); return err })
	if s.db != nil {
		return records, errors.Join(err, s.db.Close())
	}
	return records, errors.Join(err, file.Close())
}

// release closes the file for another process, which locks it then.
func (s *store) release() error {
	switch {
	case s.db == nil:
		return nil
	case s.failed != nil:
		return s.failed
	}
	err := s.db.Close()
	s.db, s.failed = nil, handedOver()
	return err
}

// reclaim is release taken back.
func (s *store) reclaim() error {
	if s.path == "" || s.db != nil {
		return nil
	}
	s.failed = nil
	if _, err := s.open(filepath.Dir(s.path)); err != nil {
		s.failed = fmt.Errorf("%s cannot be opened again after an upgrade that failed: %w", s.path, err)
		return s.failed
	}
	return nil
}
