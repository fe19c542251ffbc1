"""What the HTTP doors of sinks and transformations do alike."""

from __future__ import annotations

from knlocal.events import Event, InvalidEvent, decode
from knlocal.gateway import BodyTooLarge, Request

MAX_EVENT = 8 * 1024 * 1024
"""Bytes of a request's body; above it is 413."""

_TEXT = ("Content-Type", "text/plain; charset=utf-8")


async def read_event(request: Request) -> Event | None:
    """The request's one event; None when there is none, and 400 or 413 was answered."""
    try:
        return decode(request.headers, await request.read(MAX_EVENT))
    except BodyTooLarge:
        await say(request, 413, f"the event is larger than {MAX_EVENT} bytes")
    except InvalidEvent as error:
        await say(request, 400, str(error))
    return None


async def say(request: Request, status: int, reason: str) -> None:
    """Answer with a reason, in the header that Knative's sinks use and as text."""
    headers = [_TEXT, ("Reason", _one_line(reason))]
    await request.respond(status, headers, f"{reason}\n")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line.encode("ascii", "backslashreplace").decode()[:1000]
