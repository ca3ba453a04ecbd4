package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A program is a server of others, with one configuration.
type program struct {
	name string
	how  string // to install it
	udp  bool
	argv func(dir string, at, to netip.AddrPort) ([]string, error)
}

// version is what it says it is.
func (p program) version() string {
	flag := "-v"
	if p.name == "socat" {
		flag = "-V"
	}
	said, _ := exec.Command(p.name, flag).CombinedOutput() // nothing is no reason to stop
	for line := range strings.Lines(string(said)) {
		if i := strings.Index(strings.ToLower(line), "version"); i >= 0 {
			return strings.Join(strings.Fields(line[i+len("version"):])[:1], "")
		}
	}
	return ""
}

// start starts the program on the server's CPU and waits until it serves.
func (p program) start(cpus cpuPair, b *backend) (c *contender, err error) {
	dir, err := os.MkdirTemp("", "sockmgr-bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", p.name, errors.Join(err, os.RemoveAll(dir)))
		}
	}()
	to := b.stream
	if p.udp {
		to = b.datagram
	}
	at, err := freePort(p.udp)
	if err != nil {
		return nil, err
	}
	argv, err := p.argv(dir, at, to)
	if err != nil {
		return nil, err
	}
	// What programs say of connections that end with a round is nobody's concern.
	said, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return nil, err
	}
	proc, _, err := launch(cpus.server, said, argv...)
	if err = errors.Join(err, said.Close()); err != nil {
		return nil, err
	}
	if err := proc.untilBound(at, p.udp); err != nil {
		proc.stop()
		text, _ := os.ReadFile(filepath.Join(dir, "stderr"))
		return nil, fmt.Errorf("%w; it said: %.500s", err, text)
	}
	proc.dir = dir
	return &contender{name: p.name, proc: proc, at: at}, nil
}

// freePort asks the kernel for a port. A program that takes only numbers binds
// it a moment later; should another have it by then, the program says so.
func freePort(udp bool) (netip.AddrPort, error) {
	kind := unix.SOCK_STREAM
	if udp {
		kind = unix.SOCK_DGRAM
	}
	fd, at, err := bindLoopback(kind | unix.SOCK_CLOEXEC)
	if err == nil {
		err = unix.Close(fd)
	}
	return at, err
}

// untilBound waits until the port is bound. It connects to nothing: that would be
// for the program to serve.
func (p *process) untilBound(at netip.AddrPort, udp bool) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	timer := time.NewTimer(readyTime)
	defer timer.Stop()
	for {
		select {
		case <-p.exited:
			return errors.New("it exited at once")
		case <-timer.C:
			return fmt.Errorf("it is not bound to %v after %v", at, readyTime)
		case <-poll.C:
		}
		if isBound(at, udp) {
			return nil
		}
	}
}

// isBound looks for a listening socket, or one for datagrams, in the tables of the
// kernel (proc(5)): the address is hexadecimal, in the byte order of the machine.
func isBound(at netip.AddrPort, udp bool) bool {
	path, state := "/proc/net/tcp", "0A"
	if udp {
		path, state = "/proc/net/udp", "07"
	}
	table, _ := os.ReadFile(path) // unreadable: untilBound gives up
	ip := at.Addr().As4()
	want := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), at.Port())
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == want && f[3] == state {
			return true
		}
	}
	return false
}

// haproxy serves with one thread in one process, and without a master.
func haproxy(mode func(at, to netip.AddrPort) string) program {
	return program{name: "haproxy", how: "apt-get install haproxy", argv: func(dir string, at, to netip.AddrPort) ([]string, error) {
		path, err := writeConfig(dir, "haproxy.cfg", "global\n nbthread 1\n maxconn 4000\n maxpipes 4000\ndefaults\n"+
			" timeout connect 5s\n timeout client 60s\n timeout server 60s\n"+mode(at, to))
		return []string{"haproxy", "-db", "-q", "-f", path}, err
	}}
}

func haproxyHTTP(at, _ netip.AddrPort) string {
	return fmt.Sprintf(" mode http\nfrontend f\n bind %v\n http-request return status 200 content-type text/plain string %q\n", at, httpBody)
}

func haproxyForward(at, to netip.AddrPort) string {
	return fmt.Sprintf(" mode tcp\n option splice-auto\nlisten f\n bind %v\n server b %v\n", at, to)
}

const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

// nginx serves with one process, which a master would only watch.
func nginx(mode func(at, to netip.AddrPort) string) program {
	return program{name: "nginx", how: "apt-get install nginx-light libnginx-mod-stream", udp: strings.Contains(mode(netip.AddrPort{}, netip.AddrPort{}), " udp"), argv: func(dir string, at, to netip.AddrPort) ([]string, error) {
		text := mode(at, to)
		if strings.HasPrefix(text, "stream") {
			if _, err := os.Stat(nginxStream); err == nil { // else it is built in, or nginx says what is missing
				text = "load_module " + nginxStream + ";\n" + text
			}
		}
		path, err := writeConfig(dir, "nginx.conf", strings.ReplaceAll(text, "DIR", dir)+
			"\ndaemon off; master_process off; pid "+dir+"/pid; error_log /dev/null crit; worker_rlimit_nofile 20000;\nevents { worker_connections 9000; multi_accept on; }\n")
		return []string{"nginx", "-p", dir, "-e", "/dev/null", "-c", path}, err
	}}
}

func nginxHTTP(at, _ netip.AddrPort) string {
	return fmt.Sprintf("http { access_log off; keepalive_requests 1000000000; default_type text/plain; server_tokens off;\n"+
		"client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;\n"+
		"server { listen %v backlog=4096; location / { return 200 %q; } } }", at, httpBody)
}

func nginxForward(at, to netip.AddrPort) string {
	return fmt.Sprintf("stream { server { listen %v backlog=4096; proxy_pass %v; proxy_buffer_size 64k; } }", at, to)
}

func nginxDatagrams(at, to netip.AddrPort) string {
	return fmt.Sprintf("stream { server { listen %v udp; proxy_pass %v; proxy_timeout 30s; } }", at, to)
}

// socat forks for each connection.
func socat(other func(to netip.AddrPort) string) program {
	return program{name: "socat", how: "apt-get install socat", argv: func(_ string, at, to netip.AddrPort) ([]string, error) {
		return []string{"socat", fmt.Sprintf("TCP4-LISTEN:%d,bind=%v,fork,reuseaddr,backlog=1024,nodelay", at.Port(), at.Addr()), other(to)}, nil
	}}
}

func socatEcho(netip.AddrPort) string       { return "PIPE" }
func socatForward(to netip.AddrPort) string { return fmt.Sprintf("TCP4:%v,nodelay", to) }

// writeConfig writes a configuration.
func writeConfig(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
