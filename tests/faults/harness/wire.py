"""The way to a node: a TCP forwarder that can be cut, made slow, and healed."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

Place = tuple[str, int]

CHUNK_BYTES = 65_536
CLOSE_S = 5.0


class Wire:
    """Forwards what comes in at `front` to `back`, from a thread of its own.

    Cut, it ends every connection and refuses new ones, as an unplugged host behind a router does;
    delayed, every chunk takes its time.
    """

    def __init__(self, front: Place, back: Place) -> None:
        self._front = front
        self._back = back
        self._delay_s = 0.0
        self._is_cut = False
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"wire-{front[0]}", daemon=True)
        self._bound = threading.Event()
        self._trouble = ""
        self._thread.start()
        self._bound.wait(CLOSE_S)
        if self._trouble:
            raise OSError(self._trouble)

    def cut(self) -> None:
        """End what is open and let nothing through."""
        self._call(self._cut())

    def delay(self, seconds: float) -> None:
        """Hold every chunk back for so long."""
        self._delay_s = seconds

    def heal(self) -> None:
        """Let everything through again, at once."""
        self._is_cut = False
        self._delay_s = 0.0

    def close(self) -> None:
        """End it for good."""
        if self._thread.is_alive():
            self._call(self._cut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_S)

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CLOSE_S)

    async def _cut(self) -> None:
        self._is_cut = True
        for writer in tuple(self._open):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(asyncio.start_server(self._carry, *self._front))
        except OSError as error:
            self._trouble = str(error)
            self._loop.close()
            return
        finally:
            self._bound.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()

    async def _hang_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection(*self._back)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()
        finally:
            self._open.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()
