"""Trails of events in words: a line for `events`, the whole story for `explain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

Entry = Mapping[str, Any]
_COLOURS = {
    "delivered": "green", "waiting": "yellow", "dead-lettered": "red", "dropped": "red",
}  # fmt: skip


def headline(entry: Entry, *, colour: bool = False) -> str:
    """One event in one line: when, where, what, and how it went."""
    event = entry["event"]
    verdict, shade = _verdict(entry)
    parts = (
        _time(entry),
        f"{entry['door']['label']:<24}",
        f"{event.get('type', ''):<28}",
        str(event.get("id", "")),
        _paint(verdict, shade, colour),
    )
    return "  ".join(parts)


def told(entry: Entry, *, colour: bool = False) -> str:
    """The whole story of an event at one door, with its replies below."""
    return "\n".join(_story(entry, colour))


def _story(entry: Entry, colour: bool) -> Iterator[str]:
    event = entry["event"]
    yield f"{event.get('type', '')}  {event.get('id', '')}  from {event.get('source', '')}"
    via = f", as the reply of {entry['via']}" if entry.get("via") else ""
    yield f"  came to {entry['door']['label']} at {_time(entry)}{via}"
    if entry.get("refused"):
        yield _paint(f"  and was not accepted: {entry['refused']}", "red", colour)
    if not entry["subscribers"] and not entry.get("refused"):
        yield _paint("  where nobody subscribes", "yellow", colour)
    for subscriber in entry["subscribers"]:
        yield from _subscriber(subscriber, colour)


def _subscriber(subscriber: Entry, colour: bool) -> Iterator[str]:
    outcome = subscriber["outcome"]
    if outcome == "refused":
        yield f"  - {subscriber['name']}: not for it: {subscriber['refused']['text']}"
        return
    shown = _paint(outcome, _COLOURS.get(outcome, ""), colour)
    yield f"  - {subscriber['name']}: {shown}{_why(subscriber)}"
    for number, attempt in enumerate(subscriber.get("attempts") or (), 1):
        yield f"      {_attempt(number, attempt)}"
    reply = subscriber.get("reply")
    if reply:
        went = f"to {reply['to']}" if reply.get("to") else ""
        taken = 200 <= reply.get("status", 202) < 300
        not_taken = "" if taken else f", which did not take it ({reply['status'] or 'no answer'})"
        yield f"      replied with event {reply['id']} {went}".rstrip() + not_taken
        for trail in reply.get("trails") or ():
            yield from (f"        {line}" for line in _story(trail, colour))


def _why(subscriber: Entry) -> str:
    if subscriber.get("waiting"):
        return f": {subscriber['waiting']}"
    for key in ("dead_letter", "dropped"):
        found = subscriber.get(key)
        if found:
            to = f" to {found['to']}" if found.get("to") else ""
            return f"{to}: {found['reason']}"
    return ""


def _attempt(number: int, attempt: Entry) -> str:
    status = attempt["status"] or "no answer"
    said = " ".join(str(attempt.get("response") or "").split())
    said = f": {said[:100]}" if said else ""
    clock = str(attempt["time"])[11:23]
    took = attempt["milliseconds"]
    return f"{number}. {clock}  {status} in {took:g} ms  {attempt['url']}{said}"


def _verdict(entry: Entry) -> tuple[str, str]:
    """What became of an event, in a few words, and its colour."""
    if entry.get("refused"):
        return f"refused: {entry['refused']}", "red"
    counted: dict[str, int] = {}
    for subscriber in entry["subscribers"]:
        counted[subscriber["outcome"]] = counted.get(subscriber["outcome"], 0) + 1
    counted.pop("refused", None)
    if not counted:
        return ("matched nobody" if entry["subscribers"] else "nobody subscribes"), "yellow"
    words = ", ".join(
        f"{outcome} to {count}" if outcome == "delivered" else f"{count} {outcome}"
        for outcome, count in counted.items()
    )
    worst = max(counted, key=list(_COLOURS).index)
    return words, _COLOURS[worst]


def _time(entry: Entry) -> str:
    return str(entry["time"])[11:23].rstrip("Z")


def _paint(text: str, colour: str, wanted: bool) -> str:
    return click.style(text, fg=colour) if wanted and colour else text
