"""setsockopt and getsockopt."""

import errno
import struct

from sockmgr import socket

from .world import World

LINGER = struct.pack("ii", 1, 5)


class Options(World):
    def test_table(self):
        s = self.socket()
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
            (socket.SOL_SOCKET, socket.SO_REUSEPORT, True),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 12_345),
            (socket.IPPROTO_IP, socket.IP_TTL, 9),
        ):
            s.setsockopt(level, option, value)
            self.assertEqual(s.getsockopt(level, option), int(value), option)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.assertEqual(s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 32_768)  # as the kernel doubles it
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.assertEqual(s.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8), LINGER)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
        self.assertEqual(s.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8), bytes(8))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        self.assertEqual(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16), b"reno\0")
        self.assertEqual(struct.unpack("i", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4)), (77,))

    def test_not_in_the_table(self):
        s = self.socket()
        s.setsockopt(socket.SOL_SOCKET, 43, 1)  # SO_NOFCS
        self.assertEqual(s.getsockopt(socket.SOL_SOCKET, 43), 1)
        self.assertEqual(s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), socket.SOCK_STREAM)
        self.assertEqual(s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN), socket.AF_INET)

    def test_refused(self):
        with self.subTest("of another kind of socket"):
            udp = self.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.refused(OSError, errno.ENOPROTOOPT, udp.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.subTest("no such interface"):
            self.refused(OSError, errno.ENODEV, self.socket().setsockopt, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"nonesuch0\0")
        with self.subTest("closed"):
            s = self.socket()
            s.close()
            self.refused(OSError, errno.EBADF, s.setsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.refused(OSError, errno.EBADF, s.getsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
