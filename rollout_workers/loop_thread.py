"""An event loop on a thread of its own.

Ray runs each concurrency group of an async actor on its own event loop and thread, but vLLM's engine client belongs
to one loop: every call has to run on that one.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines of any event loop on its own loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the coroutine's result; cancelling the wait cancels the coroutine."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def stop(self) -> None:
        """Stop the loop; wait up to 5 s for its thread to end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
