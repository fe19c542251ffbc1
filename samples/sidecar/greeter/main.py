"""Runs beside the web container and knows how to greet."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Greeter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"good morning\n")

    def log_message(self, format: str, *args: object) -> None: ...


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
HTTPServer(("127.0.0.1", int(os.environ.get("GREETER_PORT", "9100"))), Greeter).serve_forever()
