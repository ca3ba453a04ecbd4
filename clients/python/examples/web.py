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


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
with ThreadingHTTPServer(("127.0.0.1", port), Hello) as server:
    print("listening on %s port %d" % server.server_address, flush=True)
    server.serve_forever()
