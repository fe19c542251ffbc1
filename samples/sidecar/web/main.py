"""Takes requests, and asks the container beside it, on the same localhost, what to say."""

import os
import signal
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETER = f"http://127.0.0.1:{os.environ.get('GREETER_PORT', '9100')}/"


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with urllib.request.urlopen(GREETER, timeout=5) as answer:
            body = b"the greeter says: " + answer.read()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Web).serve_forever()
