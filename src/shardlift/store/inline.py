"""SQLite connections that do their work at once, in the event loop's own thread, instead of in a thread each.

For simulators: with threads a run could not be repeated exactly, and virtual time could not know whether a statement
is still under way. And for an emulator that has its database in memory, and to itself: there it is a matter of speed.
The statements, the schema and the transactions are those of the real store.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import aiosqlite


class Gate(Protocol):
    """Stands before and after each piece of work; may raise, as a process that is killed there would stop."""

    def before(self) -> None: ...

    def committed(self) -> None: ...


class OpenGate:
    """Lets everything pass."""

    def before(self) -> None:
        """Nothing stands in the way."""

    def committed(self) -> None:
        """Nor here."""


class InlineConnection(aiosqlite.Connection):
    """An aiosqlite connection whose queue has nobody at its other end: whoever puts work in does it."""

    def __init__(self, path: Path, gate: Gate) -> None:
        super().__init__(lambda: sqlite3.connect(path, isolation_level=None), iter_chunk_size=64)
        self._tx = _Inline(gate)  # type: ignore[assignment]  # duck-typed: put_nowait is all that is used
        self._thread = _NoThread()  # type: ignore[assignment]  # likewise start

    def drop(self) -> None:
        """What becomes of a connection when its process dies: an open transaction is rolled back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Inline:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def put_nowait(self, work: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        future, function = work
        try:
            self._gate.before()
            result = function()
            if getattr(getattr(function, "func", None), "__name__", "") == "commit":
                self._gate.committed()
        except BaseException as error:  # noqa: BLE001  (handed to whoever waits, as the library does)
            if future is not None:
                future.set_exception(error)
        else:
            if future is not None:
                future.set_result(result)


class _NoThread:
    daemon = True

    def start(self) -> None:
        return None
