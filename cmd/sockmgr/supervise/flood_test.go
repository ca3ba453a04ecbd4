package supervise

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
)

// files counts the descriptors of this process.
func files(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A daemon that sends whatever it likes, as fast as it can, costs the supervisor no
// more descriptors than it keeps, a bounded log, and not its daemon.
func TestFlood(t *testing.T) {
	fd, address, err := fdstore.Bind()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	d := &daemon{pid: os.Getpid(), pidfd: -1, ended: make(chan struct{})}
	s := &supervisor{notices: make(chan fdstore.Notice), lines: newLines(), address: address, d: d}
	s.store.most = 100
	go fdstore.Receive(fd, s.notices)
	before := files(t)
	to, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(to, &unix.SockaddrUnix{Name: address}); err != nil {
		t.Fatal(err)
	}
	texts := []string{
		"FDSTORE=1\nFDNAME=%d", "FDSTORE=1\nFDPOLL=0\nFDNAME=a:%d", "BARRIER=1", "%d", "\n\n\x00%d", "MAINPID=1", "MAINPID=-%d", "X_SOCKMGR_HEIR=1", "X_SOCKMGR_HEIR=x",
		"FDSTOREREMOVE=1\nFDNAME=nothing", strings.Repeat("FDSTORE=1\n", 1000), "WATCHDOG=1\nREADY=1", "",
	}
	const count = 3000
	sent := make(chan error, 1)
	go func() {
		for i := range count {
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
				sent <- err
				return
			}
			text := texts[i%len(texts)]
			if strings.Contains(text, "%d") {
				text = fmt.Sprintf(text, i)
			}
			err := unix.Sendmsg(to, []byte(text), unix.UnixRights(pipe[0], pipe[1], pipe[0]), nil, 0)
			_, _ = unix.Close(pipe[0]), unix.Close(pipe[1])
			if err != nil {
				sent <- err
				return
			}
		}
		last := fdstore.Dial(address, func(err error) { sent <- err })
		last.Notify("STATUS=" + fmt.Sprint(count))
		last.Close()
		sent <- unix.Close(to)
	}()
	began := time.Now()
	for range count + 1 {
		s.act(<-s.notices)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	close(s.lines.queue)
	s.lines.write(&log)
	if s.d != d || d.stopping || s.store.count() > 100 || files(t) > before+100 {
		t.Errorf("it has %d descriptors, %d before, and keeps %d; its daemon is %+v", files(t), before, s.store.count(), s.d)
	}
	if most := perSecond * (int(time.Since(began)/time.Second) + 2); strings.Count(log.String(), "\n") > most {
		t.Errorf("it has logged %d lines in %v", strings.Count(log.String(), "\n"), time.Since(began))
	}
	s.store.clear()
	if n := files(t); n > before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
	t.Logf("%d messages in %v", count, time.Since(began))
}
