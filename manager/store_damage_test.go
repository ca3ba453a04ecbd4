package manager

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// memoryDir is a directory that costs no disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sockmgr-test-") //nolint:usetesting // it is not on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// storeRecord is a record such as the manager makes.
func storeRecord(t *testing.T, i, generation int) *Record {
	t.Helper()
	r := newRecord(fmt.Sprintf("listener-%d", i))
	d := echoDraft(fmt.Sprintf("tcp://127.0.0.1:%d", 1000+i))
	d.Labels = map[string]string{"text": strings.Repeat("x", rand.IntN(400))}
	if i%50 == 7 {
		d.Annotations = map[string]string{"long": strings.Repeat("y", 3000), "longer": strings.Repeat("z", 4000)} // pages that overflow
	}
	if _, err := r.apply(d, r.Created); err != nil {
		t.Fatal(err)
	}
	r.Generation = int64(generation)
	return r
}

// storeOf makes a store that has a history, and returns its file and what is in
// it.
func storeOf(t *testing.T, count int) (dir string, image []byte, want []Record) {
	t.Helper()
	dir = memoryDir(t)
	s, _, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count + count/4 {
		if err := s.commit(change{fmt.Sprintf("listener-%d", i), storeRecord(t, i, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range count / 4 { // pages that are free in the midst
		if err := s.commit(change{name: fmt.Sprintf("listener-%d", i*5)}, change{fmt.Sprintf("listener-%d", i*5+1), storeRecord(t, i*5+1, 2)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if image, err = os.ReadFile(filepath.Join(dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	if want, err = reopen(dir); err != nil || len(want) != count {
		t.Fatalf("%d records, %v", len(want), err)
	}
	return dir, image, want
}

func reopen(dir string) ([]Record, error) {
	s, records, err := openStore(dir)
	if err != nil {
		return nil, err
	}
	return records, s.close()
}

// refusedOrWhole opens what is in dir: it must be as it was saved, or be
// refused with a way out; and the file stays as it is.
func refusedOrWhole(t *testing.T, dir, what string, want []Record) (refused bool) {
	t.Helper()
	path := filepath.Join(dir, "state.db")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, err := reopen(dir)
	if err != nil && (!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "left as it is")) {
		t.Errorf("%s: %v", what, err)
	}
	if err == nil && !reflect.DeepEqual(records, want) {
		t.Errorf("%s: it is taken, with %d of %d records", what, len(records), len(want))
	}
	if after, err2 := os.ReadFile(path); err2 != nil || !bytes.Equal(after, before) {
		t.Errorf("%s: the file was written (%v), %v", what, err, err2)
	}
	return err != nil
}

// A bit that is another, anywhere: the daemon refuses the store, or the bit
// meant nothing. STORE_FLIPS=1000000 is the long form.
func TestStoreFlippedBits(t *testing.T) {
	flips := 400
	if text := os.Getenv("STORE_FLIPS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		flips = n
	}
	dir, image, want := storeOf(t, 60)
	file, err := os.OpenFile(filepath.Join(dir, "state.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	structure := structureOf(t, image)
	refused := 0
	for i := range flips {
		at := rand.IntN(len(image))
		if i%2 == 0 { // half of them where they hurt most
			at = structure[rand.IntN(len(structure))]
		}
		b := image[at] ^ 1<<rand.IntN(8)
		if i%16 == 1 {
			b = byte(rand.Uint32()) // a whole byte
		}
		if _, err := file.WriteAt([]byte{b}, int64(at)); err != nil {
			t.Fatal(err)
		}
		if refusedOrWhole(t, dir, fmt.Sprintf("byte %d %#x for %#x", at, b, image[at]), want) {
			refused++
		}
		if _, err := file.WriteAt(image[at:at+1], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d bits and bytes of %d KiB changed: %d refused, the rest was in places that are not in use", flips, len(image)>>10, refused)
	if refused < flips/4 {
		t.Error("hardly anything was refused")
	}
}

// structureOf is where headers and elements of pages are.
func structureOf(t *testing.T, image []byte) (places []int) {
	t.Helper()
	m, err := readMeta(bytes.NewReader(image), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for page := 0; page < int(m.end); page++ {
		for i := range 16 * 5 {
			places = append(places, page*int(m.size)+i)
		}
	}
	return places
}

// What is cut off at any page, or anywhere, is refused. So is an empty file: a
// new one is never seen empty.
func TestStoreTruncated(t *testing.T) {
	dir, image, want := storeOf(t, 120)
	path := filepath.Join(dir, "state.db")
	m, err := readMeta(bytes.NewReader(image), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	cuts := []int{0, 1, 80, 4095, 4097}
	for at := 0; at < len(image); at += int(m.size) {
		cuts = append(cuts, at, at+rand.IntN(int(m.size)))
	}
	for _, cut := range cuts {
		if err := os.WriteFile(path, image[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if refused := refusedOrWhole(t, dir, fmt.Sprintf("cut at %d", cut), want); !refused && cut < int(m.end-1)*int(m.size) {
			t.Errorf("what is cut at %d of %d is taken", cut, len(image))
		}
	}
}

// A page that is written with another's bytes, or with zeros, and an older copy
// of a page: what disks do.
func TestStoreMisplacedPages(t *testing.T) {
	dir, image, want := storeOf(t, 60)
	path := filepath.Join(dir, "state.db")
	n := len(image) / 4096
	for i := range 100 {
		damaged := bytes.Clone(image)
		page := damaged[rand.IntN(n)*4096:][:4096]
		switch i % 4 {
		case 0:
			clear(page)
		case 1:
			copy(page, image[rand.IntN(n)*4096:][:4096])
		case 2:
			clear(page[rand.IntN(8)*512:][:512])
		case 3: // right in its place, with what came before in it
			copy(page[16:], image[rand.IntN(n)*4096:][16:4096])
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		refusedOrWhole(t, dir, fmt.Sprintf("round %d", i), want)
	}
}

// Meta pages that have a good checksum and say anything.
func TestStoreForgedMeta(t *testing.T) {
	dir, image, want := storeOf(t, 20)
	path := filepath.Join(dir, "state.db")
	for range 200 {
		forged := bytes.Clone(image)
		meta := forged[4096*rand.IntN(2)+16:]
		at := []int{8, 16, 24, 32, 40}[rand.IntN(5)]
		value := []uint64{0, 1, 2, 3, rand.Uint64N(64), rand.Uint64(), 1 << 40, ^uint64(0)}[rand.IntN(8)]
		if at == 8 {
			binary.NativeEndian.PutUint32(meta[at:], uint32(value))
		} else {
			binary.NativeEndian.PutUint64(meta[at:], value)
		}
		h := fnv.New64a()
		h.Write(meta[:56])
		binary.NativeEndian.PutUint64(meta[56:], h.Sum64())
		if err := os.WriteFile(path, forged, 0o600); err != nil {
			t.Fatal(err)
		}
		refusedOrWhole(t, dir, fmt.Sprintf("%d at %d", value, at), want)
	}
}

// What is no file of ours is left as it is.
func TestStoreOtherFiles(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"empty":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"symlink":   func(path string) error { return os.Symlink("elsewhere", path) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"random": func(path string) error {
			b := []byte{}
			for range 1 << 16 {
				b = append(b, byte(rand.Uint32()))
			}
			return os.WriteFile(path, b, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state.db")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := reopen(dir); err == nil || !strings.Contains(err.Error(), path) {
				t.Error(err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || after.Size() != before.Size() || after.ModTime() != before.ModTime() {
				t.Errorf("%v was %v, %v", after, before, err)
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
				t.Errorf("%v, %v", names, err)
			}
		})
	}
}

// A file that is cut off while the daemon has it mapped: changes are refused,
// and it goes on.
func TestStoreCutOffWhileOpen(t *testing.T) {
	dir, _, want := storeOf(t, 120)
	s, _, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.path, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r := want[0]
		err := s.commit(change{r.Name, &r})
		if !errors.Is(err, listeners.StoreFailed) {
			t.Error(err)
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if _, err := reopen(dir); err == nil {
		t.Error("it is taken")
	}
}

// Stores of format 1 had no seal: they get one.
func TestStoreRaisesFormat(t *testing.T) {
	dir, _, want := storeOf(t, 20)
	edit(t, dir, func(meta *bolt.Bucket) error {
		return errors.Join(meta.Put(keyFormat, encode(1)), meta.Delete(keySeal))
	})
	for range 2 {
		if records, err := reopen(dir); err != nil || !reflect.DeepEqual(records, want) {
			t.Errorf("%d records, %v", len(records), err)
		}
	}
	edit(t, dir, func(meta *bolt.Bucket) error {
		if number(meta.Get(keyFormat)) != storeFormat || len(meta.Get(keySeal)) != 16 {
			t.Error("it was not raised")
		}
		return meta.Put(keyRevision, encode(number(meta.Get(keyRevision))+1))
	})
	if _, err := reopen(dir); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Error(err)
	}
}

func edit(t *testing.T, dir string, f func(meta *bolt.Bucket) error) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "state.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(tx *bolt.Tx) error { return f(tx.Bucket(bucketMeta)) }), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// Two daemons on one directory: the second says who has it.
func TestStoreOfTwo(t *testing.T) {
	dir := t.TempDir()
	s, _, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openStore(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another daemon (pid %d) has it open", os.Getpid())) {
		t.Error(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(dir); err != nil {
		t.Error(err)
	}
}
