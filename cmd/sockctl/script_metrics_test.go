//go:build linux

package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// cmdKnock begins connections and does not wait for what comes of them: of a
// full queue nothing does.
func cmdKnock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: knock COUNT URI")
	}
	count, err := strconv.Atoi(args[0])
	ts.Check(err)
	to, err := netip.ParseAddrPort(strings.TrimPrefix(args[1], "tcp://"))
	ts.Check(err)
	for range count {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		ts.Check(err)
		ts.Defer(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			ts.Check(err)
		}
	}
}

var metricsURL = regexp.MustCompile(`url="?(http://[^ "\n]+/metrics)`)

// cmdScrape puts what a daemon shows to Prometheus into a file.
func cmdScrape(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: scrape DAEMON FILE")
	}
	found := metricsURL.FindStringSubmatch(ts.ReadFile(args[0] + ".log"))
	if found == nil {
		ts.Fatalf("the log of %s does not say where its metrics are", args[0])
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil, DialContext: (&net.Dialer{Timeout: time.Second}).DialContext}}
	resp, err := client.Get(found[1])
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s: %s", found[1], resp.Status, text)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
}
