"""Whether a program would notice SIGTERM, read from the kernel (where there is a /proc).

The first process of a PID namespace gets no signal that it has no handler for: `python app.py` as a
container's entry point ignores SIGTERM, and would be waited for in vain until it is killed.
"""

from __future__ import annotations

import signal
from pathlib import Path

_TERM = 1 << (signal.SIGTERM - 1)


def hears_sigterm(pid: int, proc: Path = Path("/proc")) -> bool:
    """False only when the process is known to ignore SIGTERM, or to be the first of its namespace
    and to have neither a handler for it nor a way to wait for it. `pid` as this machine counts."""
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except OSError:
        return True
    found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    try:
        inner = found["NSpid"]
        caught = int(found["SigCgt"][0], 16) | int(found["SigBlk"][0], 16)
        ignored = int(found["SigIgn"][0], 16)
    except (KeyError, IndexError, ValueError):
        return True
    if ignored & _TERM and not caught & _TERM:
        return False
    if len(inner) < 2 or inner[-1] != "1":
        return True
    return bool(caught & _TERM)
