"""A server that tells what the platform gives it: what `knlocal-test/conformance:1` runs.

In the spirit of Knative's own `runtime` test image; nothing but the standard library.

GET /               `Hello <TARGET>!`
GET /info           environment, arguments, users, limits, mounts and the request itself, as JSON
GET /files?path=…   for each path: mode, kind, link target, whether it can be read and written
GET /cat?path=…     the content of a file;  /ls?path=…  the names in a folder
GET /sleep?ms=…&after=…   says so in the log, and sleeps; `after`: first byte at once, then as many
                    milliseconds
GET /busy?ms=…      500 when another request is inside at the same time
GET /bloat?mb=…     holds that much memory
GET /call?url=…&host=…    what another address answers
GET /break, /healthz      from /break on, /healthz says 500
GET /exit?code=…    ends the process
GET /ws             a WebSocket that echoes
POST /…             the body back, as it arrives
Environment: PORT, TARGET, LISTEN_DELAY and READY_DELAY (seconds), FORWARD_PORT (`/` asks there).
"""

import base64
import hashlib
import http.client
import json
import os
import signal
import socket
import socketserver
import stat
import struct
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler

STARTED = time.monotonic()
INSIDE = threading.Lock()
BROKEN = threading.Event()
SOCKETS: list[socket.socket] = []
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "conformance", ""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.query = urllib.parse.parse_qs(url.query)
        does = getattr(self, "get_" + (url.path.strip("/").replace("/", "_") or "root"), None)
        if does is None:
            self.answer(404, f"no {url.path}\n")
        else:
            does()

    def do_POST(self) -> None:
        self.send_response(200)
        for name in ("Content-Type", "Content-Length"):
            if self.headers.get(name):
                self.send_header(name, self.headers[name])
        if self.headers.get("Content-Length"):
            self.end_headers()
            left = int(self.headers["Content-Length"])
            while left and (piece := self.rfile.read1(min(left, 65536))):
                left -= len(piece)
                self.wfile.write(piece)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            piece = self.rfile.read(size)
            self.rfile.readline()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.rfile.readline()
        self.wfile.write(b"0\r\n\r\n")

    def get_root(self) -> None:
        if forward := os.environ.get("FORWARD_PORT"):
            self.answer(*fetch(f"http://127.0.0.1:{forward}/", ""))
        else:
            self.answer(200, f"Hello {os.environ.get('TARGET', 'World')}!\n")

    def get_info(self) -> None:
        told = {
            "env": dict(os.environ), "args": sys.argv[1:], "cwd": os.getcwd(),
            "uid": os.getuid(), "euid": os.geteuid(), "gid": os.getgid(), "groups": os.getgroups(),
            "hostname": socket.gethostname(), "pid": os.getpid(),
            "stdin": os.read(0, 1).hex(), "mounts": lines("/proc/mounts"),
            "capabilities": [x for x in lines("/proc/self/status") if x.startswith("Cap")],
            "request": {
                "host": self.headers.get("Host"), "method": self.command, "path": self.path,
                "version": self.request_version, "client": self.client_address[0],
                "headers": [list(pair) for pair in self.headers.items()],
            },
        }  # fmt: skip
        self.answer(200, json.dumps(told), "application/json")

    def get_files(self) -> None:
        found = {path: file_info(path) for path in self.query["path"]}
        self.answer(200, json.dumps(found), "application/json")

    def get_cat(self) -> None:
        try:
            with open(self.query["path"][0]) as file:
                self.answer(200, file.read())
        except OSError as error:
            self.answer(404, str(error))

    def get_ls(self) -> None:
        try:
            self.answer(200, json.dumps(sorted(os.listdir(self.query["path"][0]))))
        except OSError as error:
            self.answer(404, str(error))

    def get_sleep(self) -> None:
        wait = int(self.query.get("ms", ["0"])[0])
        after = int(self.query.get("after", ["0"])[0])
        print("sleeps", self.path, flush=True)
        time.sleep(wait / 1000)
        body = f"Slept for {wait + after} milliseconds".encode()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if after:
            self.wfile.write(b"5\r\nfirst\r\n")
            time.sleep(after / 1000)
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def get_busy(self) -> None:
        alone = INSIDE.acquire(blocking=False)
        time.sleep(int(self.query.get("ms", ["50"])[0]) / 1000)
        if alone:
            INSIDE.release()
        self.answer(200 if alone else 500, socket.gethostname())

    def get_bloat(self) -> None:
        held = bytearray(int(self.query["mb"][0]) << 20)
        for at in range(0, len(held), 4096):
            held[at] = 1
        self.answer(200, "held")

    def get_call(self) -> None:
        self.answer(*fetch(self.query["url"][0], self.query.get("host", [""])[0]))

    def get_break(self) -> None:
        BROKEN.set()
        self.answer(200, "broken")

    def get_healthz(self) -> None:
        print("probe", self.path, self.headers.get("User-Agent"), flush=True)
        ready = time.monotonic() - STARTED >= float(os.environ.get("READY_DELAY", "0"))
        ok = ready and not BROKEN.is_set()
        wanted = os.environ.get("READY_QUERY", "")
        self.answer(200 if ok and wanted in self.path else 500, "")

    def get_exit(self) -> None:
        os._exit(int(self.query.get("code", ["0"])[0]))

    def get_ws(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        digest = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", digest)
        self.end_headers()
        self.close_connection = True
        SOCKETS.append(self.connection)
        while (head := self.rfile.read(2)) and head[0] & 15 != 8:
            size = head[1] & 127
            if size == 126:
                size = int.from_bytes(self.rfile.read(2), "big")
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))
            self.wfile.write(frame(1, data))
        self.wfile.write(frame(8, struct.pack("!H", 1000)))

    def answer(self, status: int, body: str, kind: str = "text/plain") -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        start = self.connection.recv(len(H2_PREFACE), socket.MSG_PEEK)
        if H2_PREFACE.startswith(start[:3]) and start[:3] == b"PRI":
            self.speak_http2()
        else:
            super().handle()

    def speak_http2(self) -> None:
        """Just enough HTTP/2 to answer every stream with `HTTP/2.0`."""
        self.rfile.read(len(H2_PREFACE))
        self.wfile.write(h2_frame(4, 0, 0, b""))
        while head := self.rfile.read(9):
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:9], "big")
            payload = self.rfile.read(size)
            if kind == 4 and not flags & 1:
                self.wfile.write(h2_frame(4, 1, 0, b""))
            elif kind == 6 and not flags & 1:
                self.wfile.write(h2_frame(6, 1, 0, payload))
            elif kind in (0, 1) and flags & 1:
                self.wfile.write(h2_frame(1, 4, stream, b"\x88"))
                self.wfile.write(h2_frame(0, 1, stream, b"HTTP/2.0"))


def h2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack("!BB", 0x80 | kind, len(data)) + data


def fetch(url: str, host: str) -> tuple[int, str]:
    parts = urllib.parse.urlsplit(url)
    try:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 599, str(error)


def lines(path: str) -> list[str]:
    with open(path) as file:
        return file.read().splitlines()


def file_info(path: str) -> dict[str, object]:
    told: dict[str, object] = {}
    try:
        about = os.lstat(path)
        told["mode"], told["uid"], told["gid"] = (
            stat.filemode(about.st_mode),
            about.st_uid,
            about.st_gid,
        )
        if stat.S_ISLNK(about.st_mode):
            told["link"] = os.readlink(path)
            about = os.stat(path)
        told["kind"] = stat.filemode(about.st_mode)[0]
    except OSError as error:
        return {"error": error.strerror}
    if os.path.isdir(path):
        probe = os.path.join(path, ".knlocal-probe")
        told["write"] = attempt(lambda: (open(probe, "w").close(), os.unlink(probe)))
        told["read"] = attempt(lambda: os.listdir(path))
    else:
        told["write"] = attempt(lambda: os.close(os.open(path, os.O_WRONLY)))
        told["read"] = attempt(lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)))
        if stat.S_ISREG(about.st_mode) and path.startswith("/sys/fs/cgroup"):
            told["text"] = "\n".join(lines(path))
    return told


def attempt(what) -> str:  # type: ignore[no-untyped-def]
    try:
        what()
    except OSError as error:
        return error.strerror
    return "ok"


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 256


def stop(*_: object) -> None:
    print("SIGTERM", flush=True)
    for connection in SOCKETS:
        try:
            connection.sendall(frame(8, struct.pack("!H", 1000)))
        except OSError:
            pass
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    time.sleep(float(os.environ.get("LISTEN_DELAY", "0")))
    Server(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
