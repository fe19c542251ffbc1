"""Engines: who keeps accepted events until every subscriber has dealt with them.

`memory` forgets with the daemon, `durable` survives `kill -9`. Both implement `base.Engine`, and
one test suite runs over both.
"""

from knlocal.eventing.engines.base import Engine, Full, Limits, Message, Queue
from knlocal.eventing.engines.durable import DurableEngine
from knlocal.eventing.engines.memory import MemoryEngine

__all__ = ["DurableEngine", "Engine", "Full", "Limits", "MemoryEngine", "Message", "Queue"]
