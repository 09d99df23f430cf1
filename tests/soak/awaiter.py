"""Who reads in an event loop."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
from board import Count
from pattern import DTYPE, SHAPE, key_of
from role import SOON, NativeRole

from shared_tensor import InconsistentStreamError, Stream, UnlinkedStreamError, streams

#: Seconds after which an iteration, which has no time limit of its own, is cancelled.
_LOOK_UP = 0.3


class Awaiter(NativeRole):
    """Has several tasks wait, in one event loop after the other."""

    frames = 20

    def turn(self) -> bool:
        """Read some frames in each of four tasks, some of which give up waiting."""
        try:
            return asyncio.run(self._read())
        finally:
            # Until it is collected, a loop keeps its descriptors and the thread that waits for it.
            gc.collect()

    async def _read(self) -> bool:
        shared = self.stream
        with self.open() as own:
            read = await asyncio.gather(
                self._while_it_lasts(own),
                self._next(shared),
                self._next(shared),
                self._contract(),
            )
        return sum(read) > 0

    async def _next(self, stream: Stream) -> int:
        out = np.empty(SHAPE, DTYPE)
        read = 0
        for _ in range(self.frames):
            # Shorter than it is between two frames, now and then.
            patience = self.chance.choice((SOON, 200e-6))
            try:
                key_of(await asyncio.wait_for(stream.next_async(timeout=SOON, out=out), patience))
            except UnlinkedStreamError:
                break
            except (TimeoutError, asyncio.TimeoutError):
                self.count(Count.CANCELLED)
                continue
            self.count(Count.FRAMES)
            read += 1
        return read

    async def _while_it_lasts(self, stream: Stream) -> int:
        try:
            return await asyncio.wait_for(self._iterate(stream), _LOOK_UP)
        except asyncio.TimeoutError:
            # At the end of the soak nobody writes any more.
            self.count(Count.CANCELLED)
            return 0

    async def _iterate(self, stream: Stream) -> int:
        read = 0
        # Ends when the stream is unlinked.
        async for frame in stream:
            key_of(frame)
            self.count(Count.FRAMES)
            read += 1
            if read == self.frames:
                break
        return read

    async def _contract(self) -> int:
        read = 0
        try:
            with streams.open(self.ground.name, readonly=True) as stream:
                for _ in range(self.frames):
                    key_of(await stream.read_new_async(timeout=SOON))
                    self.count(Count.FRAMES)
                    read += 1
        except InconsistentStreamError:
            self.count(Count.TOLD)
        except (FileNotFoundError, TimeoutError, UnlinkedStreamError):
            pass
        return read
