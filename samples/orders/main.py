"""Takes orders over HTTP and tells the world about them: an event to whoever K_SINK names.

curl -d '{"item": "tea", "amount": 12}' http://orders.default.localhost:8080
"""

import json
import os
import signal
import sys
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        try:
            order = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        except ValueError:
            self.answer(400, {"error": "send an order as JSON"})
            return
        event_id = str(uuid.uuid4())
        headers = {
            "ce-specversion": "1.0",
            "ce-id": event_id,
            "ce-type": "order.created",
            "ce-source": "/orders",
            "content-type": "application/json",
        }
        request = urllib.request.Request(os.environ["K_SINK"], json.dumps(order).encode(), headers)
        urllib.request.urlopen(request, timeout=10).close()
        self.answer(202, {"order": event_id, "next": f"knlocal explain {event_id}"})

    def do_GET(self) -> None:
        self.answer(200, {"try": 'curl -d \'{"item": "tea", "amount": 12}\' ' + "HERE"})

    def answer(self, status: int, what: object) -> None:
        body = json.dumps(what).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Orders).serve_forever()
