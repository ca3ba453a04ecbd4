"""The socket calls, one by one."""

import errno
import os
import socket as std
import tempfile
import threading
import time

from sockmgr import select, socket

from .world import PATIENCE, World


class Calls(World):
    def test_socket(self):
        for family, type in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_SEQPACKET)):
            s = self.socket(family, type)
            self.assertEqual((s.family, s.type), (family, type))
            self.assertIsInstance(s.family, socket.AddressFamily)
        self.assertEqual(self.socket().family, socket.AF_INET)
        self.refused(OSError, errno.EPROTONOSUPPORT, socket.socket, socket.AF_INET, socket.SOCK_RAW)

    def test_bind_and_names(self):
        s = self.socket()
        s.bind(("localhost", 0))
        host, port = s.getsockname()
        self.assertEqual(host, "127.0.0.1")
        self.assertGreater(port, 0)
        self.refused(OSError, errno.EINVAL, s.bind, ("127.0.0.1", 0))
        any = self.socket()
        any.bind(("", 0))
        self.assertEqual(any.getsockname()[0], "0.0.0.0")
        with self.assertRaises(TypeError):
            any.bind("127.0.0.1:80")
        with self.assertRaises(OverflowError):
            any.bind(("127.0.0.1", 65536))

    def test_listen_and_accept(self):
        server = self.server()
        server.listen(7)
        c = std.create_connection(server.getsockname())  # the kernel's own, from this process
        conn, address = server.accept()
        with c, conn:
            self.assertEqual(address, c.getsockname())
            self.assertEqual(conn.getpeername(), c.getsockname())
            self.assertEqual(conn.getsockname(), server.getsockname())
            self.assertEqual((conn.family, conn.type), (server.family, server.type))
            self.assertIsNone(conn.gettimeout())
        self.refused(OSError, errno.EOPNOTSUPP, self.socket(socket.AF_INET, socket.SOCK_DGRAM).listen)

    def test_setblocking(self):
        server = self.server()
        server.setblocking(False)
        self.assertEqual((server.getblocking(), server.gettimeout()), (False, 0))
        self.refused(BlockingIOError, errno.EAGAIN, server.accept)
        a, b = self.pair()
        b.setblocking(False)
        self.refused(BlockingIOError, errno.EAGAIN, b.recv, 1)
        b.setblocking(True)
        self.assertEqual((b.getblocking(), b.gettimeout()), (True, None))
        threading.Timer(0.05, a.send, (b"x",)).start()
        self.assertEqual(b.recv(1), b"x")
        self.assertEqual(self.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK).gettimeout(), 0)

    def test_settimeout(self):
        a, b = self.pair()
        b.settimeout(0.02)
        began = time.monotonic()
        e = self.refused(TimeoutError, errno.ETIMEDOUT, b.recv, 1)
        self.assertGreaterEqual(time.monotonic() - began, 0.02)
        self.assertIsInstance(e, socket.timeout)
        self.assertIn("timed out", str(e))
        self.assertEqual(b.gettimeout(), 0.02)
        b.settimeout(None)
        self.assertIsNone(b.timeout)
        with self.assertRaises(ValueError):
            b.settimeout(-1)
        server = self.server()
        server.settimeout(0.01)
        self.refused(TimeoutError, errno.ETIMEDOUT, server.accept)
        std.setdefaulttimeout(0.5)
        self.addCleanup(std.setdefaulttimeout, None)
        self.assertEqual(self.socket().gettimeout(), 0.5)

    def test_connect(self):
        server = self.server()
        c = self.socket()
        self.refused(OSError, errno.ENOTCONN, c.getpeername)
        c.connect(("localhost", server.getsockname()[1]))
        self.assertEqual(c.getpeername(), server.getsockname())
        self.refused(OSError, errno.EISCONN, c.connect, server.getsockname())
        address = server.getsockname()
        server.close()
        self.refused(ConnectionRefusedError, errno.ECONNREFUSED, self.socket().connect, address)
        with self.assertRaises(socket.gaierror):
            self.socket().connect(("no.such.host.invalid", 1))
        self.refused(ConnectionRefusedError, errno.ECONNREFUSED, socket.create_connection, address)

    def test_connect_ex(self):
        server = self.server()
        address = server.getsockname()
        self.assertEqual(self.socket().connect_ex(address), 0)
        c = self.socket()
        c.setblocking(False)
        self.assertIn(c.connect_ex(address), (0, errno.EINPROGRESS))
        self.assertEqual(select.select([], [c], [], PATIENCE)[1], [c])
        self.assertEqual(c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        server.close()
        self.assertEqual(self.socket().connect_ex(address), errno.ECONNREFUSED)
        c = self.socket()
        c.setblocking(False)
        number = c.connect_ex(address)
        if number == errno.EINPROGRESS:
            select.select([], [c], [], PATIENCE)
            number = c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.assertEqual(number, errno.ECONNREFUSED)
        c.close()
        self.assertEqual(c.connect_ex(address), errno.EBADF)

    def test_recv(self):
        a, b = self.pair()
        a.sendall(b"hello")
        self.assertEqual(b.recv(2, socket.MSG_PEEK), b"he")
        self.assertEqual(b.recv(2), b"he")
        self.assertEqual(b.recv(0), b"")
        buffer = bytearray(10)
        self.assertEqual(b.recv_into(buffer), 3)
        self.assertEqual(buffer[:3], b"llo")
        threading.Timer(0.02, a.sendall, (b"67",)).start()
        a.sendall(b"12345")
        self.assertEqual(b.recv(7, socket.MSG_WAITALL), b"1234567")
        a.shutdown(socket.SHUT_WR)
        self.assertEqual(b.recv(10), b"")
        b.sendall(b"bye")
        self.assertEqual(a.recv(10), b"bye")
        with self.assertRaises(ValueError):
            b.recv(-1)
        self.refused(OSError, errno.EOPNOTSUPP, b.recv, 1, socket.MSG_OOB)

    def test_send(self):
        a, b = self.pair()
        a.setblocking(False)
        sent = 0
        with self.assertRaises(BlockingIOError):
            while True:
                n = a.send(bytes(3 << 20))
                self.assertTrue(0 < n <= 1 << 20)
                sent += n
        a.settimeout(PATIENCE)
        rest = b"rest" * (1 << 19)  # more than one call carries
        thread = threading.Thread(target=a.sendall, args=(rest,))
        thread.start()
        got = bytearray()
        while len(got) < sent + len(rest):
            got += b.recv(1 << 20)
        thread.join()
        self.assertTrue(got.endswith(rest) and not any(got[:sent]))
        b.close()
        with self.assertRaises(ConnectionError):
            while True:
                a.send(b"x")

    def test_datagrams(self):
        a, b = self.server(type=socket.SOCK_DGRAM), self.server(type=socket.SOCK_DGRAM)
        self.assertEqual(a.sendto(b"hello", b.getsockname()), 5)
        self.assertEqual(a.sendto(b"", 0, b.getsockname()), 0)
        self.assertEqual(b.recvfrom(100), (b"hello", a.getsockname()))
        self.assertEqual(b.recvfrom(100), (b"", a.getsockname()))
        a.sendto(b"cut off", b.getsockname())
        buffer = bytearray(3)
        self.assertEqual(b.recvfrom_into(buffer), (3, a.getsockname()))
        self.assertEqual(buffer, b"cut")
        a.connect(b.getsockname())
        a.send(b"x")
        self.assertEqual(b.recv(10), b"x")
        self.refused(OSError, errno.EMSGSIZE, a.send, bytes(70_000))

    def test_unix(self):
        with tempfile.TemporaryDirectory(dir="/tmp") as dir:
            path = os.path.join(dir, "s")
            server = self.server(socket.AF_UNIX, address=path)
            self.assertEqual(server.getsockname(), path)
            c = std.socket(std.AF_UNIX)
            c.connect(path)
            conn, address = server.accept()
            with c, conn:
                self.assertEqual((address, conn.getpeername()), ("", ""))
                c.sendall(b"x")
                self.assertEqual(conn.recv(1), b"x")
            name = b"\0sockmgr-py-%d" % os.getpid()
            self.assertEqual(self.server(socket.AF_UNIX, address=name).getsockname(), name)
            d = self.server(socket.AF_UNIX, socket.SOCK_DGRAM, os.path.join(dir, "d"))
            self.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", d.getsockname())
            self.assertEqual(d.recvfrom(10), (b"x", None))

    def test_ipv6(self):
        if not std.has_dualstack_ipv6():
            self.skipTest("there is no IPv6 here")
        server = self.server(socket.AF_INET6, address=("::1", 0))
        self.assertEqual(server.getsockname()[0::2], ("::1", 0))
        self.assertEqual(len(server.getsockname()), 4)
        with socket.create_connection(server.getsockname()[:2]) as c:
            self.assertEqual(c.family, socket.AF_INET6)
        both = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.addCleanup(both.close)
        with std.create_connection(("127.0.0.1", both.getsockname()[1])) as c:
            conn, address = both.accept()
            conn.close()
            self.assertEqual(address[:2], ("::ffff:127.0.0.1", c.getsockname()[1]))
        one = socket.create_server(("", 0), family=socket.AF_INET6)
        self.addCleanup(one.close)
        self.refused(ConnectionRefusedError, errno.ECONNREFUSED, std.create_connection, ("127.0.0.1", one.getsockname()[1]))

    def test_select(self):
        a, b = self.pair()
        server = self.server()
        self.assertEqual(select.select([b, server], [], [b], 0), ([], [], []))
        self.assertEqual(select.select([b], [], [], 0.01), ([], [], []))
        self.assertEqual(select.select([b], [a, b], [a]), ([], [a, b], []))
        a.send(b"x")
        with std.create_connection(server.getsockname()):
            self.assertEqual(select.select([server], [], [], PATIENCE), ([server], [], []))
            self.assertEqual(select.select([a, b.fileno(), server], [], []), ([b.fileno(), server], [], []))
        with self.assertRaises(ValueError):
            select.select([b], [], [], -1)
        self.refused(OSError, errno.EBADF, select.select, [999_999], [], [])
        b.close()
        with self.assertRaises(ValueError):
            select.select([b], [], [])

    def test_close(self):
        a, b = self.pair()
        self.assertGreater(a.fileno(), 0)
        thread = threading.Thread(target=self.refused, args=(OSError, errno.EBADF, a.recv, 1))
        thread.start()
        with a:
            pass
        thread.join(PATIENCE)
        a.close()
        self.assertEqual(a.fileno(), -1)
        for call in (lambda: a.recv(1), lambda: a.send(b"x"), a.getsockname, a.accept, lambda: a.settimeout(1)):
            self.refused(OSError, errno.EBADF, call)
        self.assertEqual(b.recv(1), b"")
        with b.makefile("rb") as f:
            b.close()
            self.assertGreater(b.fileno(), 0)  # the file needs it
            self.assertEqual(f.read(), b"")
        self.assertEqual(b.fileno(), -1)

    def test_detach(self):
        a, b = self.pair()
        fd = a.detach()
        self.assertEqual(a.fileno(), -1)
        again = self.socket(fileno=fd)
        self.assertEqual((again.family, again.type, again.getpeername()), (b.family, b.type, b.getsockname()))
        self.refused(OSError, errno.EBADF, socket.socket, -1, -1, -1, 999_999)
        self.refused(OSError, errno.EOPNOTSUPP, b.dup)

    def test_forgotten(self):
        server = self.server()
        a = std.create_connection(server.getsockname())
        conn, _ = server.accept()
        del conn
        with a:
            self.assertEqual(a.recv(1), b"")  # the collector has closed it

    def test_errors(self):
        server, (a, b) = self.server(), self.pair()
        udp = self.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for number, call in (
            (errno.ENOTCONN, lambda: server.recv(1)),
            (errno.EPIPE, lambda: server.send(b"x")),
            (errno.EINVAL, a.accept),
            (errno.EOPNOTSUPP, udp.accept),
            (errno.EADDRINUSE, lambda: self.socket().bind(server.getsockname())),
            (errno.EADDRNOTAVAIL, lambda: self.socket().bind(("192.0.2.1", 0))),
            (errno.ENOTCONN, lambda: self.socket().shutdown(socket.SHUT_RDWR)),
            (errno.EINVAL, lambda: a.shutdown(3)),
            (errno.EDESTADDRREQ, lambda: udp.send(b"x")),
        ):
            e = self.refused(OSError, number, call)
            self.assertEqual(type(e), type(OSError(number, "")), e)  # BrokenPipeError and the like
