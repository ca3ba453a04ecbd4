"""What becomes of sockets when programs end, sleep or fork."""

import errno
import json
import os
import signal
import socket as std
import subprocess
import sys
import threading

import sockmgr
from sockmgr import api, errors, socket
from sockmgr.client import client

from .world import PATIENCE, World, exactly, sockctl

HOLD = """
import sys, sockmgr
sockmgr.configure(idle_timeout=float(sys.argv[1]))
from sockmgr import socket
server = socket.create_server(("127.0.0.1", 0))
c = socket.create_connection(server.getsockname())
a, _ = server.accept()
print(server.getsockname()[1], server.name, c.name, a.name, flush=True)
"""


def told():
    return client().call("ListSockets", api.ListSocketsRequest(page_size=1000)).sockets


def there(names):
    return {s.name for s in told()} & set(names)


def wait_until_gone(names):
    """Waits for events, not for a while: to be asked is no use of a socket."""
    gone = threading.Event()

    def look():
        while there(names) and not gone.wait(0.02):
            pass
        gone.set()

    thread = threading.Thread(target=look)
    thread.start()
    if not gone.wait(PATIENCE):
        gone.set()
    thread.join()
    return there(names)


class Processes(World):
    def hold(self, idle, then):
        p = self.program("-c", HOLD + then, str(idle))
        port, *names = p.stdout.readline().split()
        return p, int(port), names

    def test_killed(self):
        p, port, names = self.hold(0.3, "sys.stdin.read(); import time; time.sleep(60)")
        self.assertEqual(there(names), set(names))
        p.kill()
        p.wait()
        self.assertEqual(wait_until_gone(names), set())
        with self.assertRaises(ConnectionRefusedError):
            std.create_connection(("127.0.0.1", port))

    def test_ended(self):
        p, _, names = self.hold(300, "")
        self.assertEqual((p.wait(PATIENCE), p.stderr.read()), (0, ""))
        self.assertEqual(there(names), set())

    def test_idle_but_alive(self):
        p, port, names = self.hold(0.3, "import time; time.sleep(1.2); print('slept', flush=True); time.sleep(60)")
        self.assertEqual(p.stdout.readline(), "slept\n")
        self.assertEqual(there(names), set(names))

    def test_interrupted(self):
        """Ctrl-C ends a call, and takes nothing that comes later."""
        p, port, names = self.hold(300, "print('waits', flush=True)\ntry: c.recv(1)\nexcept KeyboardInterrupt: a.send(b'x'); print(c.recv(10))")
        self.assertEqual(p.stdout.readline(), "waits\n")
        while not any(s.waits_for for s in told() if s.name in names):  # until the call is in the daemon
            pass
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.communicate(timeout=PATIENCE), ("b'x'\n", ""))

    def test_forked(self):
        p, _, names = self.hold(300, "import os\npid = os.fork()\nif pid: os.wait(); print(a.getsockname()[0]); sys.exit()\ntry: a.send(b'x')\nexcept RuntimeError as e: print(e, flush=True)\nsys.exit()")
        out, _ = p.communicate(timeout=PATIENCE)
        self.assertIn("forked", out)
        self.assertIn("127.0.0.1", out)  # the child's end has closed nothing

    def test_no_daemon(self):
        env = {**os.environ, "SOCKMGR_ADDR": "unix:///tmp/no-such-directory/c.sock"}
        code = "import sockmgr\nfrom sockmgr import socket\ntry: socket.socket()\nexcept sockmgr.Unavailable as e: print(e.errno, e)"
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE)
        self.assertTrue(out.stdout.startswith("%d " % errno.ECONNABORTED), out)
        env["SOCKMGR_ADDR"] = "http://127.0.0.1:1"
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE)
        self.assertIn("want unix:///path, or tcp://host:port", out.stderr)

    def test_listener(self):
        sockctl("start", "py2", "--handler", "remote", "--listen", "tcp://127.0.0.1:0")
        self.addCleanup(sockctl, "rm", "py2")
        listener = sockmgr.listener("py2")
        listener.settimeout(0.02)
        self.refused(TimeoutError, errno.ETIMEDOUT, listener.accept)
        listener.settimeout(PATIENCE)
        with std.create_connection(listener.getsockname()) as c:
            conn, address = listener.accept()
            with conn:
                self.assertEqual(address, c.getsockname())
                conn.sendall(b"hello")
                self.assertEqual(exactly(c, 5), b"hello")
                open = json.loads(sockctl("conn", "ls", "-o", "json"))
                self.assertEqual(open["connections"][0]["listener"], "listeners/py2")
        with self.assertRaises(OSError) as caught:
            sockmgr.listener("nonesuch").accept()
        self.assertEqual(caught.exception.reason, "LISTENER_NOT_FOUND")

    def test_reasons(self):
        s = self.server()
        e = self.refused(OSError, errno.EADDRINUSE, self.socket().bind, s.getsockname())
        self.assertEqual((e.reason, e.metadata["errno"]), ("ADDRESS_IN_USE", "EADDRINUSE"))
        self.assertTrue(issubclass(errors.Unavailable, ConnectionError))
