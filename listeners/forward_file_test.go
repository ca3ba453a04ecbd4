package listeners_test

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// fileSize is how much TestForwardFile moves: SOCKMGR_TEST_BYTES, as 2147483648
// for the long form, or 128 MiB.
func fileSize(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("SOCKMGR_TEST_BYTES")
	if text == "" {
		return 128 << 20
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("SOCKMGR_TEST_BYTES: %v", err)
	}
	return n
}

// A large file arrives whole while its listener and its connection are tuned and
// the upstreams change all the time.
func TestForwardFile(t *testing.T) {
	size := fileSize(t)
	h := newHost(t, "epoll", 0)
	one, two := backend(t, "tcp", "127.0.0.1:0"), backend(t, "tcp", "127.0.0.1:0")
	s := spec(t, forwardTo(one.Addr()), "", "tcp://127.0.0.1:0")
	l := h.open(s)
	client := dial(t, h.addr(l, 0))
	up := one.next(t)
	until := time.Now().Add(5 * time.Minute)
	client.SetDeadline(until)
	up.SetDeadline(until)

	var sent, got [sha256.Size]byte
	var wg sync.WaitGroup
	start := time.Now()
	wg.Go(func() {
		hash := sha256.New()
		n, err := io.Copy(io.MultiWriter(client, hash), io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
		if n != size || err != nil {
			t.Errorf("%d bytes sent, %v", n, err)
		}
		hash.Sum(sent[:0])
		closeWrite(t, client)
	})
	arrived := make(chan struct{})
	wg.Go(func() {
		defer close(arrived)
		n, sum, err := hashed(up)
		if n != size || err != nil {
			t.Errorf("%d bytes arrived, %v", n, err)
		}
		got = sum
	})
	rounds := h.unrest(l, s, arrived, []*listeners.Forward{
		forwardTo(two.Addr()), forwardTo(one.Addr(), two.Addr()), forwardTo(two.Addr(), one.Addr()), forwardTo(one.Addr()),
	})
	took := time.Since(start)
	wg.Wait()
	if got != sent {
		t.Error("what arrived is not what was sent")
	}
	if rounds < 3 {
		t.Errorf("only %d changes meanwhile", rounds)
	}
	t.Logf("%d MiB in %v, %d changes of upstreams and %d of options meanwhile", size>>20, took.Round(time.Millisecond), rounds, 4*rounds)
	up.Close()
	eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
	if st := h.stats(l); st.Received != uint64(size) {
		t.Errorf("%+v", st)
	}
}

// unrest tunes a listener and its connections, and changes its upstreams, until
// something is over; it returns how often.
func (h *host) unrest(l *listeners.Listener, s listeners.Spec, over <-chan struct{}, upstreams []*listeners.Forward) (rounds int) {
	for {
		select {
		case <-over:
			return rounds
		default:
		}
		s.Handler = upstreams[rounds%len(upstreams)]
		h.do(func() { l.Settle(s) })
		buffer := strconv.Itoa(64 << (rounds % 5)) // KiB
		for option, value := range map[string]string{
			"backlog": strconv.Itoa(16 + rounds%100), "receive_buffer_bytes": buffer + "KiB",
		} {
			h.tune(l, option, value)
		}
		// With a bandwidth the flow is copied, without it is spliced.
		pace := "0B"
		if rounds%3 == 0 {
			pace = "300MiB"
		}
		h.tune(l, "read_rate_bytes", pace)
		for _, r := range h.tuneConns(l, "receive_buffer_bytes", buffer+"KiB") {
			if r.Outcome == listeners.Failed {
				h.t.Errorf("%+v", r)
			}
		}
		h.until(5 * time.Millisecond)
		rounds++
	}
}
