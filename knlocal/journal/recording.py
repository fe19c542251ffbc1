"""Recordings: events in a file of JSON lines that can be checked in and sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from knlocal.clock import Clock
from knlocal.events import Event, InvalidEvent
from knlocal.events.json_format import from_object

#: Attributes that a door adds, and adds again when the event is sent again.
_ADDED = ("knativearrivaltime", "knativebrokerttl")


class Recorded(NamedTuple):
    """An event, when it came, and to which door."""

    at: datetime
    door_url: str
    event: Event
    is_reply: bool = False
    """Whether it was a subscriber's answer: it comes again by itself when its cause is sent."""


class RecordingError(ValueError):
    """The file is no recording; the message names the line."""


class Recording:
    """Writes journal entries to a file, one JSON document a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.count = 0

    def add(self, entry: dict[str, Any]) -> None:
        event = {name: value for name, value in entry["event"].items() if name not in _ADDED}
        line = {"time": entry["time"], "door": entry["door"]["url"], "event": event}
        if entry.get("parent"):
            line["reply"] = True
        self._file.write(orjson.dumps(line) + b"\n")
        self._file.flush()
        self.count += 1

    async def follow(self, entries: AsyncIterator[dict[str, Any]]) -> None:
        """Record a tail until it ends or the task is cancelled."""
        async for entry in entries:
            self.add(entry)

    def close(self) -> None:
        self._file.close()


def recorded(entry: dict[str, Any]) -> Recorded:
    """A journal entry, or a line of a recording, as something to send again."""
    document = {name: value for name, value in entry["event"].items() if name not in _ADDED}
    door = entry["door"]
    url = door["url"] if isinstance(door, dict) else str(door)
    event = from_object(document)
    event.mode = "binary" if entry.get("mode") == "binary" else "structured"
    is_reply = bool(entry.get("reply") or entry.get("parent"))
    return Recorded(datetime.fromisoformat(entry["time"]), url, event, is_reply)


def read_recording(path: Path) -> list[Recorded]:
    """The events of a recording; also of a plain file with one event in the JSON format a line."""
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            document = orjson.loads(line)
            if "specversion" in document:
                moment = document.get("time") or "1970-01-01T00:00:00Z"
                document = {"time": moment, "door": "", "event": document}
            found.append(recorded(document))
        except (InvalidEvent, ValueError, KeyError, TypeError) as error:
            raise RecordingError(f"{path}, line {number}: {error}") from None
    return found


Send = Callable[[Event, str], Awaitable[int]]
"""Posts an event to a URL and returns the status."""


async def replay(
    events: Iterable[Recorded], send: Send, clock: Clock, *, to: str = "", keep_pace: bool = False
) -> list[tuple[Recorded, int]]:
    """Send events again, in order: to their own doors, or all to the URL `to`.

    `keep_pace` leaves the pauses between them as they were. Returns each with its answer's status.
    """
    answers = []
    before: datetime | None = None
    for one in events:
        if keep_pace and before is not None:
            await clock.sleep((one.at - before).total_seconds())
        before = one.at
        answers.append((one, await send(one.event, to or one.door_url)))
    return answers
