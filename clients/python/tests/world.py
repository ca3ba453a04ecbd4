"""What the tests share. They need a daemon: go test ./clients/python starts one."""

import os
import signal
import subprocess
import sys
import threading
import unittest

from sockmgr import socket

PATIENCE = 30
EXAMPLES = os.path.join(os.path.dirname(__file__), "..", "examples")


class World(unittest.TestCase):
    """A test that closes what it opened."""

    def server(self, family=socket.AF_INET, type=socket.SOCK_STREAM, address=("127.0.0.1", 0)):
        s = self.socket(family, type)
        s.bind(address)
        if type != socket.SOCK_DGRAM:
            s.listen()
        return s

    def socket(self, *args, **kwargs):
        s = socket.socket(*args, **kwargs)
        self.addCleanup(s.close)
        return s

    def pair(self):
        """A connection: both ends are in the daemon."""
        server = self.server()
        a = self.socket()
        a.connect(server.getsockname())
        b, _ = server.accept()
        self.addCleanup(b.close)
        server.close()
        return a, b

    def refused(self, exception, number, function, *args):
        with self.assertRaises(exception) as caught:
            function(*args)
        self.assertEqual(caught.exception.errno, number, caught.exception)
        return caught.exception

    def serve(self, server):
        """Runs a socketserver until the test ends."""
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()

        def stop():
            server.shutdown()
            thread.join(PATIENCE)
            server.server_close()

        self.addCleanup(stop)

    def program(self, *argv):
        """Starts a Python program, and ends it with the test."""
        p = subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def stop():
            # As Ctrl-C: then it closes what it has. Python loses one that comes
            # while the collector runs a __del__; who sits there presses again.
            for patience in (3, 3, PATIENCE):
                p.send_signal(signal.SIGINT)
                try:
                    return p.communicate(timeout=patience)
                except subprocess.TimeoutExpired:
                    pass
            p.kill()
            out, err = p.communicate()
            raise AssertionError("%s does not end: %s%s" % (p.args, out, err))

        self.addCleanup(stop)
        return p

    def example(self, name):
        """Starts an example that listens; returns the program and its address."""
        p = self.program(os.path.join(EXAMPLES, name), "127.0.0.1:0")
        words = p.stdout.readline().split()
        if words[:2] != ["listening", "on"]:
            self.fail("%s: %s" % (words, p.stderr.read()))
        host, _, port = words[2].rpartition(":")
        return p, (host, int(port))


def exactly(conn, n):
    """So many bytes of a socket of the kernel's own."""
    with conn.makefile("rb") as f:
        return f.read(n)


def sockctl(*args):
    return subprocess.run(["sockctl", *args], check=True, capture_output=True, text=True).stdout
