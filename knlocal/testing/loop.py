"""An event loop on a thread of its own: what lets plain tests drive an asynchronous daemon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from knlocal.testing.matching import hidden

__tracebackhide__ = hidden

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for callers of any kind: `run` blocks, `aio` can be awaited elsewhere."""

    def __init__(self, name: str = "knlocal") -> None:
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T], within: float | None = 60.0) -> T:
        """The result of `work`; TimeoutError after `within` seconds, and the work is cancelled."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this would wait for itself; use the asynchronous form here")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(within)
        except AssertionError as error:  # of a test: the way it came is of no interest
            raise error.with_traceback(None) from error.__cause__
        except FutureTimeoutError:
            if future.done():
                raise
            future.cancel()
            raise TimeoutError(f"no result within {within:g} s") from None

    async def aio(self, work: Coroutine[Any, Any, T]) -> T:
        """The same from another event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Tasks alive on the loop, for leak checks."""
        return [task for task in asyncio.all_tasks(self._loop) if not task.done()]

    def stop(self) -> None:
        """End the loop; tasks still alive are cancelled."""
        if self._loop.is_closed():
            return
        self.run(_cancel_all(), within=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=5)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _new_loop() -> asyncio.AbstractEventLoop:
    """The loop that `knlocal up` runs on, too; advancing a day takes thousands of its turns."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
