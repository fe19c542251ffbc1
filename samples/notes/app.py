"""A WSGI app without a server of its own (any framework's app goes the same way): knlocal finds
`app` and serves it; ASGI apps, too."""

from collections.abc import Callable, Iterable
from typing import Any

NOTES: list[str] = []


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "POST":
        size = int(environ.get("CONTENT_LENGTH") or 0)
        NOTES.append(environ["wsgi.input"].read(size).decode())
        start_response("201 Created", [("Content-Length", "0")])
        return [b""]
    body = "".join(f"- {note}\n" for note in NOTES).encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
