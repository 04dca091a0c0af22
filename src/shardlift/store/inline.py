"""SQLite connections that do their work at once, in the event loop's own thread, instead of in a thread each.

For simulators: with threads a run could not be repeated exactly, and virtual time could not know whether a statement
is still under way. And for an emulator that has its database in memory, and to itself: there it is a matter of speed.
The statements, the schema and the transactions are those of the real store.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import Any, Literal, Protocol

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet


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


class InlineConnection:
    """A DBAPI connection for SQLAlchemy's asynchronous SQLite engine that never waits, so it needs no other thread.

    The engine's own connections hand each piece of work to a thread, and switch stacks to wait for it; here a statement
    costs what SQLite takes for it.
    """

    def __init__(self, path: Path, gate: Gate) -> None:
        gate.before()
        self._gate = gate
        self._plain: sqlite3.Connection | None = sqlite3.connect(path, isolation_level=None)

    def drop(self) -> None:
        """What becomes of a connection when its process dies: an open transaction is rolled back."""
        plain, self._plain = self._plain, None
        if plain is not None:
            plain.close()

    def opened(self) -> sqlite3.Connection:
        """For the next piece of work. Raises what the gate raises, or OperationalError once it is closed."""
        self._gate.before()
        if self._plain is None:
            raise sqlite3.OperationalError("the connection is closed")
        return self._plain

    # what SQLAlchemy asks of a connection

    @property
    def driver_connection(self) -> InlineConnection:
        return self

    @property
    def isolation_level(self) -> str | None:
        return self.opened().isolation_level

    @isolation_level.setter
    def isolation_level(self, value: Literal["DEFERRED", "EXCLUSIVE", "IMMEDIATE"] | None) -> None:
        self.opened().isolation_level = value

    def cursor(self, *, server_side: bool = False) -> InlineCursor:
        if server_side:
            raise NotImplementedError("rows are read at once")
        return InlineCursor(self)

    def create_function(self, *args: Any, **more: Any) -> None:
        self.opened().create_function(*args, **more)

    def commit(self) -> None:
        if self._plain is not None:
            self.opened().commit()
            self._gate.committed()

    def rollback(self) -> None:
        if self._plain is not None:
            self.opened().rollback()

    def close(self) -> None:
        self.drop()

    def terminate(self) -> None:
        self.drop()


class _Nothing:
    """To be awaited: over at once."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return iter(())  # type: ignore[return-value]  # what is never begun is never sent to


_NOTHING: Awaitable[Any] = _Nothing()


class InlineCursor:
    """Reads all rows of a statement when it is carried out."""

    arraysize = 1

    def __init__(self, connection: InlineConnection) -> None:
        self._connection = connection
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    def execute(self, statement: str, values: Any = ()) -> None:
        self._took(self._connection.opened().execute(statement, values or ()))
        if in_greenlet():
            await_only(_NOTHING)  # SQLAlchemy refuses a statement that has awaited nothing: it takes it for a slip

    def executemany(self, statement: str, values: Any) -> None:
        self._took(self._connection.opened().executemany(statement, values))
        if in_greenlet():
            await_only(_NOTHING)

    def _took(self, cursor: sqlite3.Cursor) -> None:
        self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
        self._rows = deque(cursor.fetchall()) if cursor.description else deque()
        cursor.close()

    def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        rows, self._rows = list(self._rows), deque()
        return rows

    def setinputsizes(self, *_sizes: Any) -> None:
        """SQLite has no use for them."""

    def close(self) -> None:
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """SQLAlchemy's word for: the rows may be read later, the statement is over."""
