"""The clock of engines and processes. They live in real time, whatever clock a daemon under test is
given: their deadlines, and the pauses between two looks at them, are measured with this one."""

from __future__ import annotations

from knlocal.clock import SystemClock

CLOCK = SystemClock()
