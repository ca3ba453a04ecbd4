"""The client on another host than the daemon: control over TCP."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

from .world import PATIENCE, World

HELLO = """
from sockmgr import socket
try:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        c.sendall(b"hello")
        print(server.accept()[0].recv(10))
except Exception as e:
    print(type(e).__name__, e)
"""


class OverTCP(World):
    def setUp(self):
        dir = tempfile.TemporaryDirectory(dir="/tmp")
        self.addCleanup(dir.cleanup)
        self.dir = dir.name
        os.chmod(self.dir, 0o700)

    def file(self, name, text=""):
        path = os.path.join(self.dir, name)
        if text:
            with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
                f.write(text)
        return path

    def certificate(self, name, san):
        """A file with a certificate that signs itself, and its key."""
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=test", "-addext", "subjectAltName=" + san, "-keyout", "-"], check=True, capture_output=True, text=True)
        return self.file(name, made.stdout)

    def daemon(self, *args):
        """Starts a daemon that listens on TCP alone, and returns its address."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("SOCKMGR_")}
        p = subprocess.Popen(
            ["sockmgr", "--state", "memory", "--log-level", "warn", "--control", "tcp://127.0.0.1:0", *args], env=env, stdout=subprocess.PIPE, text=True)

        def stop():
            p.send_signal(signal.SIGINT)
            p.communicate()

        self.addCleanup(stop)
        return p.stdout.readline().split()[-1]

    def hello(self, address, **env):
        env = {**os.environ, "SOCKMGR_ADDR": address, **env}
        return subprocess.run([sys.executable, "-c", HELLO], env=env, capture_output=True, text=True, timeout=PATIENCE).stdout

    def test_loopback(self):
        self.assertEqual(self.hello(self.daemon("--insecure-loopback")), "b'hello'\n")
        self.assertIn("SOCKMGR_CERT is not set", self.hello("tcp://192.0.2.1:1"))

    def test_tls(self):
        if not shutil.which("openssl"):
            self.skipTest("there is no openssl here")
        server, mine = self.certificate("server.pem", "IP:127.0.0.1"), self.certificate("mine.pem", "URI:spiffe://example.com/py")
        other = self.certificate("other.pem", "URI:spiffe://example.com/other")
        config = self.file("config.yaml", 'access:\n  - {certificate: "uri:spiffe://example.com/py", role: data}\n')
        cas = self.file("cas.pem", open(mine).read() + open(other).read())
        address = self.daemon("--config", config, "--control-tls-cert", server, "--control-tls-client-ca", cas)
        self.assertEqual(self.hello(address, SOCKMGR_CERT=mine, SOCKMGR_CA=server), "b'hello'\n")  # data may set options of its own
        self.assertIn("PermissionError", self.hello(address, SOCKMGR_CERT=other, SOCKMGR_CA=server))
        self.assertIn("Unavailable", self.hello(address, SOCKMGR_CERT=mine, SOCKMGR_CA=mine))
