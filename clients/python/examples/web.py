"""A web server: one GET, one "Hello, World". The handler is what it always was;
only the import has changed."""

import sys

from sockmgr.http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"Hello, World\n")

    def log_message(self, *args):
        pass


host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080").rpartition(":")
with ThreadingHTTPServer((host, int(port)), Hello) as server:
    print("listening on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
