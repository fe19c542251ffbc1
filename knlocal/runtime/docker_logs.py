"""Logs of one container, as whole lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from knlocal.runtime.api import LogOptions
from knlocal.runtime.docker_http import NORMAL, Engine, EngineRefused
from knlocal.runtime.docker_streams import Lines, frames


async def read(engine: Engine, container_id: str, options: LogOptions) -> AsyncIterator[bytes]:
    """Nothing when the container is gone. A `previous` one has ended: nothing to follow."""
    follow = options.follow and not options.previous
    params = {
        "stdout": True,
        "stderr": True,
        "follow": follow,
        "tail": "all" if options.tail is None else options.tail,
        "since": _seconds(options.since) if options.since else None,
        "timestamps": options.timestamps,
    }
    try:
        shown = await engine.get(f"/containers/{container_id}/json")
        lines = Lines(timestamps=options.timestamps)
        async with engine.stream(
            "GET",
            f"/containers/{container_id}/logs",
            params=params,
            silence=None if follow else NORMAL,
        ) as body:
            async for stream, data in frames(body, tty=bool(shown["Config"]["Tty"])):
                if whole := lines.add(stream, data):
                    yield whole
        if rest := lines.rest():
            yield rest
    except EngineRefused as refused:
        # Gone, or being removed just now (409): nothing more to read.
        if refused.status not in {404, 409}:
            raise


def _seconds(moment: datetime) -> str:
    """Unix seconds with nine decimals, without a float's rounding."""
    whole = int(moment.timestamp() // 1)
    return f"{whole}.{moment.microsecond:06d}000"
