"""Golden recordings: a run's events in a file that is checked in, and compared by what matters.

Ids, times and what a broker adds differ from run to run and are ignored; type, source, subject,
extensions and data must agree, in order per door.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from knlocal.events import Event
from knlocal.journal import Recording, Trail
from knlocal.journal.recording import read_recording
from knlocal.testing.matching import data_of, hidden

if TYPE_CHECKING:
    from knlocal.testing.project import LocalProject

__tracebackhide__ = hidden

#: Stands for the run's own namespace in a recording.
ANY = "NAMESPACE"
IGNORED = frozenset({"id", "time", "knativearrivaltime", "knativebrokerttl", "traceparent"})


class Golden:
    """`project.golden("orders.jsonl")`: `check` compares the run so far, or writes the file when
    it is not there yet or `--knlocal-record` was given."""

    def __init__(self, project: LocalProject, path: Path, *, record: bool) -> None:
        self._project = project
        self.path = path
        self._record = record or not path.exists()

    def check(self, *, ignore: Iterable[str] = ()) -> None:
        """Fail, with a diff, when the run's events differ from the recorded ones."""
        if self._record:
            self.save()
            return
        ignored = IGNORED | set(ignore)
        wanted = _lines(((_door(r.door_url), r.event) for r in read_recording(self.path)), ignored)
        found = _lines(((_door(t.door.url), t.event) for t in self._trails()), ignored)
        found = [line.replace(self._project.namespace, ANY) for line in found]
        if wanted != found:
            diff = difflib.unified_diff(wanted, found, str(self.path), "this run", lineterm="")
            raise AssertionError("the run's events differ from the recording:\n" + "\n".join(diff))

    def save(self) -> None:
        """Write the run's events so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        recording = Recording(self.path)
        for trail in self._trails():
            text = orjson.dumps(trail.to_json()).decode()
            recording.add(orjson.loads(text.replace(self._project.namespace, ANY)))
        recording.close()

    def replay(self) -> None:
        """Send the recorded events again, each to the same door of this project; events that were
        replies are left out, as the project answers with them itself."""
        for one in read_recording(self.path):
            if not one.is_reply:
                url = one.door_url.replace(ANY, self._project.namespace)
                self._project.run(self._project.events.post(url, one.event))

    def _trails(self) -> list[Trail]:
        place = self._project.namespace
        return [t for t in self._project.daemon.journal.trails() if t.door.namespace == place]


def _door(url: str) -> str:
    """A door as it is told apart in any namespace: `broker default`, `channel orders`."""
    rest = url.partition("://")[2]
    host, _, path = rest.partition("/")
    if path.strip("/"):
        return f"broker {path.strip('/').rpartition('/')[2]}"
    return f"channel {host.partition('.')[0].removesuffix('-kn-channel')}"


def _lines(events: Iterable[tuple[str, Event]], ignored: frozenset[str] | set[str]) -> list[str]:
    """Readable lines, one field each, grouped by door: what a diff is made of."""
    by_door: dict[str, list[Event]] = defaultdict(list)
    for door, event in events:
        by_door[door].append(event)
    lines: list[str] = []
    for door in sorted(by_door):
        for event in by_door[door]:
            lines.append(f"{door}: {event.type}")
            for name in sorted(event.attributes.keys() - ignored - {"type"}):
                lines.append(f"    {name}: {event.attributes[name]}")
            data: Any = data_of(event)
            if data is not None:
                shown = data if isinstance(data, (str, bytes)) else _pretty(data)
                lines += [f"    data: {part}" for part in str(shown).splitlines()]
    return lines


def _pretty(data: Any) -> str:
    return orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
