"""Opening the database, bringing its schema up to date, and the two kinds of transaction."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from filelock import FileLock, Timeout
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shardlift.errors import BusyError, ShardliftError
from shardlift.store.inline import InlineConnection, OpenGate

_BUSY_TIMEOUT_S = 5
_LOOK_TIMEOUT_S = 0.1
_MIGRATION_TIMEOUT_S = 30
_WRITE = "shardlift_write"
# Alembic keeps what it is doing in its module: one thread of a process at a time.
_MIGRATING = threading.Lock()
_POLL_FIRST_S = 0.05
_POLL_LAST_S = 0.5


class StoreError(ShardliftError):
    """The database did not take a write or answer a read; what it held before is untouched."""

    code = "store"


class Database:
    """One SQLite file in WAL mode.

    `read` and `write` give one transaction each. A write transaction is exclusive from its first statement (BEGIN
    IMMEDIATE), so what it reads cannot change before it commits; it commits whole or not at all.
    """

    def __init__(self, engine: AsyncEngine, path: Path, *, inline: bool = False) -> None:
        self._engine = engine
        self._inline = inline
        self._path = path
        self._changed = asyncio.Condition()
        # Reads only, in the event loop's own thread: a lookup takes microseconds, a hop to another thread a hundred.
        self._watch = sqlite3.connect(path, isolation_level=None, timeout=_LOOK_TIMEOUT_S)
        self._watch.execute("PRAGMA query_only=ON")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with _told():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        with _told():
            async with self._engine.connect() as plain:
                connection = await plain.execution_options(**{_WRITE: True})
                async with connection.begin():
                    yield connection
        async with self._changed:
            self._changed.notify_all()

    async def wait_change(self, seen: int | None, timeout_s: float) -> int:
        """Waits until the data may differ from when `seen` was returned, or `timeout_s` passed; returns a new mark.

        Writes of this process wake it at once. Those of other processes are noticed through SQLite's data_version, a
        counter in shared memory, looked at with a growing pause since SQLite has no way to be told.
        """
        pause_s, left_s = _POLL_FIRST_S, timeout_s
        mark = self.mark()
        while mark == seen and left_s > 0:
            wait_s = min(pause_s, left_s)
            try:
                async with asyncio.timeout(wait_s), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                left_s -= wait_s
                pause_s = min(pause_s * 2, _POLL_LAST_S)
            mark = self.mark()
        return mark

    def mark(self) -> int:
        """A number that is another one once any process, this one too, has committed anything. Takes microseconds."""
        # data_version does not count the asking connection's own commits; this connection makes none.
        try:
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.OperationalError:
            with _told():
                raise

    @contextmanager
    def moment(self) -> Iterator[Callable[[str, tuple[Any, ...]], list[Any]]]:
        """Lookups by index at one moment, on the spot: for what takes microseconds, since all else waits meanwhile.

        Gives a function of a statement and its values that returns rows. Bounded by 0.1 s where the file is locked.
        """
        with _told():
            self._watch.execute("BEGIN")
            try:
                yield lambda statement, values: self._watch.execute(statement, values).fetchall()
            finally:
                self._watch.execute("ROLLBACK")

    async def glance(self, statement: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows of one statement in SQLite's own words: for what is asked after every change.

        On the spot where all statements are carried out so; else off the loop, since it may look at many rows.
        """
        if self._inline:
            with _told():
                return self._watch.execute(statement, values).fetchall()
        async with self.read() as connection:
            return (await connection.exec_driver_sql(statement, dict(values))).all()

    async def purge(self) -> None:
        """Rewrites the file, so that nothing which was deleted or overwritten is left in its free pages or its log.

        Raises StoreError while other connections read or write.
        """
        with _told():
            await asyncio.to_thread(_purge, self._path)

    async def close(self) -> None:
        self._watch.close()
        await self._engine.dispose()


class _told:  # noqa: N801  (reads as a phrase where it is used)
    """Turns the driver's errors into ours, so that callers and users see one kind with a remedy."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OperationalError):
            text = str(error.orig)
        elif isinstance(error, sqlite3.OperationalError):
            text = str(error)
        else:
            return
        if "full" in text or "disk I/O" in text:
            remedy = "free space on the disk of SHARDLIFT_HOME; work goes on by itself then"
        elif "locked" in text:
            remedy = "end the other program that holds the database open for writing"
        else:
            remedy = "see the log of `shardlift serve`"
        raise StoreError(f"the database refused: {text}", remedy=remedy) from error


def _on_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not open transactions of its own
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        # FULL: a journal row that we acted on must survive a power cut as well as a crash.
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_TIMEOUT_S * 1000}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    # By the driver's own cursor: the library's way to a statement costs more than the statement.
    cursor = connection.connection.cursor()
    cursor.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    cursor.close()


def _purge(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_TIMEOUT_S)
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"the database could not be rewritten: {error}", remedy="stop other programs that have it open, and retry"
        ) from None
    finally:
        connection.close()


def migrate(path: Path) -> None:
    """Makes the file, or brings its schema up to date. Raises BusyError while another process does."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}".replace("%", "%%"))
    try:
        with FileLock(path.with_suffix(".migrate.lock"), timeout=_MIGRATION_TIMEOUT_S), _MIGRATING:
            command.upgrade(config, "head")
    except Timeout:
        raise BusyError(
            f"another process has been changing the schema of {path} for {_MIGRATION_TIMEOUT_S} s",
            remedy="wait for it to end",
        ) from None
    path.chmod(0o600)


def connect(path: Path, opener: Callable[[], InlineConnection] | None = None) -> Database:
    """The database at `path`, whose schema is up to date. `opener` makes its connections in place of the usual ones."""
    more = {} if opener is None else {"creator": opener}
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **more)
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return Database(engine, path, inline=opener is not None)


@asynccontextmanager
async def open_database(path: Path, *, alone: bool = False) -> AsyncIterator[Database]:
    """The database at `path`, made or migrated as needed. The file is readable by its owner alone.

    `alone`: it lies in memory and no other process uses it, so that no statement has to wait. Then all are carried out
    at once, in the loop's own thread, which costs a fraction of handing them to another.
    """
    with _told():
        await asyncio.to_thread(migrate, path)
    database = connect(path, (lambda: InlineConnection(path, OpenGate())) if alone else None)
    try:
        yield database
    finally:
        await database.close()
