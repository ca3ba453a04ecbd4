package main

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

const testWindow = 50 * time.Millisecond

func listenTCP(t *testing.T) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, netip.MustParseAddrPort(l.Addr().String())
}

func measure(t *testing.T, n int, open opener) (sample, error) {
	t.Helper()
	l, err := newLoad(n, open)
	defer l.close()
	if err != nil {
		t.Fatal(err)
	}
	return l.measure(t.Context(), os.Getpid(), testWindow)
}

func TestLoad(t *testing.T) {
	echo, echoAddr := listenTCP(t)
	go acceptEcho(echo)
	web, webAddr := listenTCP(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, httpBody)
	})}
	go server.Serve(web)
	t.Cleanup(func() { server.Close() })
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	go echoDatagrams(udp)
	for name, open := range map[string]opener{
		"echo": echoTo(echoAddr),
		"http": httpTo(webAddr),
		"udp":  udpTo(netip.MustParseAddrPort(udp.LocalAddr().String())),
		"gso":  udpOf(8, 1200, true)(netip.MustParseAddrPort(udp.LocalAddr().String())),
	} {
		t.Run(name, func(t *testing.T) {
			// A machine that is busy with other things may leave a window without any answer.
			var s sample
			var err error
			for range 20 {
				if s, err = measure(t, 4, open); err == nil && s.rate >= 100 && s.starved == 0 {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.rate < 100 || s.p50 <= 0 || s.p99 < s.p50 || s.starved > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A server that changes one byte of what it should send back is found out.
func TestEchoIsCompared(t *testing.T) {
	l, addr := listenTCP(t)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, echoSize)
		for range 3 {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			c.Write(buf)
		}
		io.ReadFull(c, buf)
		buf[echoSize-1]++
		c.Write(buf)
	}()
	client, err := newLoad(1, echoTo(addr))
	defer client.close()
	if err != nil {
		t.Fatal(err)
	}
	// It ends with the fault, however long it may take.
	if _, err := client.measure(t.Context(), os.Getpid(), time.Minute); err == nil || !strings.Contains(err.Error(), "request 3: sent") {
		t.Errorf("error is %v", err)
	}
}

// A datagram that is not answered is counted and the window goes on.
func TestLostDatagrams(t *testing.T) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for i := 0; ; i++ {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if i%100 != 99 {
				c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	l, err := newLoad(1, udpTo(netip.MustParseAddrPort(c.LocalAddr().String())))
	defer l.close()
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.measure(t.Context(), os.Getpid(), 2*time.Duration(lossTime))
	if err != nil {
		t.Fatal(err)
	}
	if s.lost == 0 || s.lost > 4*udpWindow {
		t.Errorf("%d lost in two loss times", s.lost)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for ns := int64(1); ns <= 1_000_000; ns++ {
		h.add(ns)
	}
	for _, q := range []float64{0.5, 0.99} {
		got, want := float64(h.quantile(q)), q*1e6
		if got < 0.97*want || got > 1.03*want {
			t.Errorf("quantile %v is %v", q, got)
		}
	}
	for i := range len(h.counts) - 1 {
		if bucket(lowest(i)) != i || bucket(lowest(i+1)-1) != i {
			t.Fatalf("bucket %d is not from %d to below %d", i, lowest(i), lowest(i+1))
		}
	}
}
