package handover

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzRequest sends any bytes, with a descriptor or without, to a server, as a
// caller does: it answers each with a reply that can be read, hands out what
// belongs to that answer, keeps nothing, and goes on to answer.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"verb":"take","names":["web"]}`), true)
	f.Add([]byte(`{"verb":"supervise","socket":"@x"}`), false)
	f.Add([]byte(`{"verb":1}`), false)
	f.Add([]byte(`[[[[`), true)
	at := filepath.Join(f.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: at, Net: "unixpacket"})
	if err != nil {
		f.Fatal(err)
	}
	s := &Server{
		Enter:   func(ctx context.Context, _ *net.UnixConn) (context.Context, error) { return ctx, nil },
		Failed:  func(error) {},
		Refusal: func(err error) (string, string) { return err.Error(), "NO" },
		Handle: func(_ context.Context, r Request) (names []string, files []int, err error) {
			if r.Verb != Take {
				return nil, nil, errors.New(r.Verb)
			}
			for _, name := range r.Names[:min(len(r.Names), 600)] {
				fd, err := unix.Dup(0)
				if err != nil {
					return names, files, err
				}
				names, files = append(names, name), append(files, fd)
			}
			return names, files, nil
		},
	}
	done := make(chan struct{})
	go func() { s.Serve(context.Background(), l); close(done) }()
	f.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	f.Fuzz(func(t *testing.T, text []byte, rights bool) {
		if len(text) == 0 {
			return // to the other end as to hang up
		}
		before := open(t)
		if conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: at, Net: "unixpacket"}); err != nil {
			t.Fatal(err)
		} else {
			speak(t, conn, text, rights)
		}
		var want Request
		if json.Unmarshal(text, &want) == nil {
			names, files, _, err := Ask(at, want)
			closeAll(files)
			if want.Verb == Take && (err != nil || len(names) != min(len(want.Names), 600)) && len(text) < maxMessage/8 {
				t.Errorf("%d names of %d, %v", len(names), len(want.Names), err)
			}
		}
		for end := time.Now().Add(patience); open(t) > before; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("%d descriptors are open, %d before", open(t), before)
			}
		}
	})
}

// speak sends one message as it is, and takes the answer.
func speak(t *testing.T, conn *net.UnixConn, text []byte, rights bool) {
	t.Helper()
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var control []byte
	if rights {
		control = unix.UnixRights(0)
	}
	if len(text) > maxMessage {
		text = text[:maxMessage]
	}
	if _, _, err := conn.WriteMsgUnix(text, control, nil); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		r, files, err := receive(conn)
		closeAll(files)
		var refused *Error
		if more = r.More; err != nil && !errors.As(err, &refused) {
			t.Fatalf("%q: %v", text, err)
		}
	}
}

func open(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
