"""A server with a thread for each client, who may stay for long: what one says
is told to all."""

import sys
import threading

from sockmgr import socketserver

lock, here = threading.Lock(), set()


class Guest(socketserver.StreamRequestHandler):
    def handle(self):
        with lock:
            here.add(self)
        try:
            for line in self.rfile:
                with lock:
                    others = list(here)
                for guest in others:
                    guest.wfile.write(line)
        finally:
            with lock:
                here.discard(self)


class Chat(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7008").rpartition(":")
with Chat((host, int(port)), Guest) as server:
    print("listening on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
