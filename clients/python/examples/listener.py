"""Takes connections of a listener of the daemon, which goes on listening, and
keeps who waits, while this program is restarted:

    sockctl start web --handler remote --listen tcp://127.0.0.1:8080
    python3 listener.py web
"""

import sys

import sockmgr

for conn, address in sockmgr.listener(sys.argv[1]):
    with conn:
        conn.settimeout(10)
        conn.recv(4096)  # the request
        conn.sendall(b"HTTP/1.0 200 OK\r\n\r\nHello, %s\n" % address[0].encode())
