package manager

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// FuzzStore changes bytes of a store, or cuts it: it is opened, and what is read
// can be saved, or it is refused with its path and is left as it is.
func FuzzStore(f *testing.F) {
	good := sampleStore(f)
	f.Add([]byte{}, uint32(len(good)))
	for _, at := range []int{0, 16, 24, 64, 4096, 4096 + 16, 8192, 2 * 8192, 3 * 8192, 4 * 4096, 5 * 4096} {
		f.Add([]byte{byte(at >> 16), byte(at >> 8), byte(at), 0xff}, uint32(len(good)))
		f.Add([]byte{byte(at >> 16), byte(at >> 8), byte(at), 1, 0, 0, 1, 1}, uint32(at))
	}
	f.Fuzz(func(t *testing.T, changes []byte, size uint32) {
		bad := bytes.Clone(good[:min(int(size), len(good))])
		for ; len(changes) >= 4; changes = changes[4:] {
			at := int(changes[0])<<16 | int(changes[1])<<8 | int(changes[2])
			if at < len(bad) {
				bad[at] ^= changes[3]
			}
		}
		dir := t.TempDir()
		path := filepath.Join(dir, "state.db")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, records, err := openStore(dir)
		if err != nil {
			if now, errRead := os.ReadFile(path); errRead != nil || !bytes.Equal(now, bad) {
				t.Errorf("%v, and the file has changed: %v", err, errRead)
			}
			if !bytes.Contains([]byte(err.Error()), []byte(path)) {
				t.Errorf("%v does not say of which file", err)
			}
			return
		}
		for i := range records {
			if records[i].Name == "" {
				t.Errorf("a record without a name: %+v", records[i])
			}
		}
		_ = s.close() // it may say what is damaged
	})
}

// sampleStore is the file of a store that has some listeners, and had more.
func sampleStore(f *testing.F) []byte {
	f.Helper()
	dir := f.TempDir()
	s, _, err := openStore(dir)
	if err != nil {
		f.Fatal(err)
	}
	spec, err := listeners.ParseSpec([]string{"tcp://127.0.0.1:0"}, &listeners.Echo{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 12 {
		r := Record{Name: "web-" + string(rune('a'+i)), UID: newUID(), Spec: spec, Generation: 1, Created: time.Now(), Updated: time.Now(), Labels: map[string]string{"tier": "edge"}}
		some := []change{{name: r.Name, put: &r}}
		if i > 8 {
			some = append(some, change{name: "web-a"})
		}
		if err := s.commit(some...); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "state.db"))
	if err != nil {
		f.Fatal(err)
	}
	return text
}
