"""What happened to every event and request: the trail behind `events`, `explain` and `replay`.

    journal = Journal(clock, path)            # path None keeps it in memory only
    trail = journal.open(door, event, considered, matched)
    journal.step(trail, Step("attempt", "trigger default/t", now, url, 202, 0.004, ""))

    journal.explain("event-id")               # → JSON data, one entry per door the event came to
    with journal.tail(Selection(type="order.*")) as tail:
        async for entry in tail: …
    journal.recent(Selection(…), limit=100)

Memory is bounded by count and bytes, the file by rows; what is older is forgotten.
"""

from knlocal.journal.journal import Journal, Tail
from knlocal.journal.recording import Recording, read_recording, replay
from knlocal.journal.selection import Selection
from knlocal.journal.trail import Considered, Door, Step, Trail

__all__ = [
    "Considered",
    "Door",
    "Journal",
    "Recording",
    "Selection",
    "Step",
    "Tail",
    "Trail",
    "read_recording",
    "replay",
]
