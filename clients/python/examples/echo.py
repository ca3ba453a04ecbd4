"""An echo server: one thread, and select for many clients."""

import sys

from sockmgr import select, socket

host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7007").rpartition(":")
server = socket.create_server((host, int(port)))
server.setblocking(False)
print("listening on %s:%d" % server.getsockname(), flush=True)
clients = []
while True:
    readable, _, _ = select.select([server, *clients], [], [])
    for sock in readable:
        if sock is server:
            conn, address = server.accept()
            clients.append(conn)
            print("%s:%d has come" % address, flush=True)
            continue
        data = sock.recv(4096)
        if data:
            sock.sendall(data)
        else:
            clients.remove(sock)
            sock.close()
