"""Two UDP sockets: what one sends, the other answers in capitals."""

from sockmgr import socket

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    server.bind(("127.0.0.1", 0))
    client.settimeout(5)
    client.sendto(b"hello", server.getsockname())
    data, sender = server.recvfrom(1500)
    server.sendto(data.upper(), sender)
    print(client.recvfrom(1500)[0].decode())
