"""CloudEvents as knlocal carries them: one class, the JSON format and the HTTP binding. Pure.

It lies below the engines, so that the journal, the brokers and the sources share it.
"""

from knlocal.events.event import Event, InvalidEvent, validate
from knlocal.events.http import decode, encode, has_event
from knlocal.events.json_format import from_json, to_json

__all__ = [
    "Event",
    "InvalidEvent",
    "decode",
    "encode",
    "from_json",
    "has_event",
    "to_json",
    "validate",
]
