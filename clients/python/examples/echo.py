"""An echo server: one thread, and select for many clients."""

import sys

from sockmgr import select, socket

port = int(sys.argv[1]) if len(sys.argv) > 1 else 7007
server = socket.create_server(("127.0.0.1", port))
server.setblocking(False)
print("listening on %s port %d" % server.getsockname(), flush=True)
clients = []
while True:
    readable, _, _ = select.select([server, *clients], [], [])
    for sock in readable:
        if sock is server:
            conn, address = server.accept()
            clients.append(conn)
            print("%s port %d has come" % address, flush=True)
            continue
        data = sock.recv(4096)
        if data:
            sock.sendall(data)
        else:
            clients.remove(sock)
            sock.close()
