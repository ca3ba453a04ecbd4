"""Takes connections over from a sockmgr listener with the handoff handler, and greets."""
import json
import os
import socket
import sys

path = sys.argv[1]
if os.path.exists(path):
    os.unlink(path)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.bind(path)
    server.listen()
    while True:
        daemon, _ = server.accept()
        with daemon:
            while True:
                header, fds, _, _ = socket.recv_fds(daemon, 4096, 1)
                if not header:
                    break  # the listener was stopped; it connects again
                with socket.socket(fileno=fds[0]) as client:
                    client.setblocking(True)  # it comes non-blocking
                    client.sendall(f"hello {json.loads(header)['remote']}\n".encode())
