"""socketserver, http.server and what is built on them, and the examples."""

import shutil
import socket as std
import socketserver as std_socketserver
import subprocess
import urllib.request

import sockmgr.std
from sockmgr import selectors, socket, socketserver
from sockmgr.http import client, server

from .world import EXAMPLES, PATIENCE, World, exactly, sockctl


class Echo(socketserver.StreamRequestHandler):
    timeout = PATIENCE
    disable_nagle_algorithm = True

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Shout(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class Hello(server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b"Hello, World\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Crowd(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 256


class Servers(World):
    def test_threads(self):
        with Crowd(("127.0.0.1", 0), Echo) as s:
            self.serve(s)
            # More than one connection to the daemon carries at once.
            crowd = [std.create_connection(s.server_address, PATIENCE) for _ in range(150)]
            for c in crowd:
                self.addCleanup(c.close)
            for i, c in enumerate(crowd * 2):
                c.sendall(b"%d\n" % i)
            for i, c in enumerate(crowd):
                want = b"%d\n%d\n" % (i, i + len(crowd))
                self.assertEqual(exactly(c, len(want)), want)
            self.doCleanups()

    def test_udp_server(self):
        with socketserver.UDPServer(("127.0.0.1", 0), Shout) as s:
            self.serve(s)
            c = self.socket(socket.AF_INET, socket.SOCK_DGRAM)
            c.settimeout(PATIENCE)
            c.sendto(b"hello", s.server_address)
            self.assertEqual(c.recvfrom(100), (b"HELLO", s.server_address))
            self.doCleanups()

    def test_http(self):
        s = server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
        self.serve(s)
        url = "http://127.0.0.1:%d/" % s.server_address[1]
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            self.assertEqual(answer.read(), b"Hello, World\n")
        if shutil.which("curl"):
            got = subprocess.run(["curl", "-s", "--max-time", str(PATIENCE), url, url], capture_output=True, check=True)
            self.assertEqual(got.stdout, b"Hello, World\n" * 2)
        # The client may be in the daemon too.
        c = client.HTTPConnection(*s.server_address, timeout=PATIENCE)
        big = b"0123456789abcdef" * (1 << 16)
        for _ in range(2):
            c.request("POST", "/", big)
            self.assertEqual(c.getresponse().read(), big)
        self.assertIsInstance(c.sock, socket.socket)
        c.close()
        with sockmgr.std.load("urllib.request").urlopen(url, timeout=PATIENCE) as answer:
            self.assertEqual(answer.read(), b"Hello, World\n")

    def test_others_stay_as_they_are(self):
        self.assertIs(std_socketserver.socket, std)
        self.assertIsNot(std_socketserver.TCPServer, socketserver.TCPServer)
        self.assertTrue(issubclass(server.HTTPServer, socketserver.TCPServer))
        xmlrpc = sockmgr.std.load("xmlrpc.server")
        self.assertTrue(issubclass(xmlrpc.SimpleXMLRPCServer, socketserver.TCPServer))

    def test_selector(self):
        a, b = self.pair()
        with selectors.DefaultSelector() as chosen:
            key = chosen.register(a, selectors.EVENT_READ | selectors.EVENT_WRITE, "data")
            chosen.register(b, selectors.EVENT_READ)
            self.assertEqual(chosen.select(0), [(key, selectors.EVENT_WRITE)])
            b.send(b"x")
            chosen.modify(a, selectors.EVENT_READ)
            self.assertEqual([(k.fileobj, events) for k, events in chosen.select()], [(a, selectors.EVENT_READ)])
            chosen.unregister(a)
            self.assertEqual(chosen.select(0.01), [])
            b.close()
            chosen.unregister(b)


class Examples(World):
    def test_web(self):
        _, address = self.example("web.py")
        with urllib.request.urlopen("http://%s:%d/" % address, timeout=PATIENCE) as answer:
            self.assertEqual(answer.read(), b"Hello, World\n")

    def test_echo(self):
        _, address = self.example("echo.py")
        crowd = [std.create_connection(address, PATIENCE) for _ in range(20)]
        for i, c in enumerate(crowd):
            c.sendall(b"%d" % i)
        for i, c in enumerate(crowd):
            with c:
                self.assertEqual(c.recv(100), b"%d" % i)
        with std.create_connection(address, PATIENCE) as c:
            c.shutdown(std.SHUT_WR)
            self.assertEqual(c.recv(1), b"")

    def test_threads(self):
        _, address = self.example("threads.py")
        guests = [std.create_connection(address, PATIENCE) for _ in range(5)]
        for g in guests:
            g.sendall(b"here\n")
            self.assertEqual(exactly(g, 5), b"here\n")  # its own, or another's: it is one of them
        files = [g.makefile("rb") for g in guests]
        guests[0].sendall(b"hello\n")
        for f in files:
            while f.readline() != b"hello\n":
                pass
        for x in files + guests:
            x.close()

    def test_udp(self):
        out, err = self.program("%s/udp.py" % EXAMPLES).communicate(timeout=PATIENCE)
        self.assertEqual((out, err), ("HELLO\n", ""))

    def test_listener(self):
        sockctl("start", "py", "--handler", "remote", "--listen", "tcp://127.0.0.1:0")
        self.addCleanup(sockctl, "rm", "py")
        with std.create_connection(sockmgr.listener("py").getsockname(), PATIENCE) as c:
            self.program("%s/listener.py" % EXAMPLES, "py")
            c.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self.assertEqual(c.makefile("rb").read(), b"HTTP/1.0 200 OK\r\n\r\nHello, 127.0.0.1\n")
