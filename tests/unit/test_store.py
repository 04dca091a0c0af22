"""The database: its schema is what the code says, and readers are told of changes."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from shardlift.model import Strategy
from shardlift.store import open_database
from shardlift.store.tables import metadata
from tests.worlds import open_lab


async def test_migrations_make_the_schema_of_the_code(fast_home: Path) -> None:
    path = fast_home / "shardlift.db"
    async with open_database(path):
        pass
    with create_engine(f"sqlite:///{path}").connect() as connection:
        # Partial indices compare by name only on SQLite, which is enough to see one missing.
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


async def test_only_the_owner_reads_the_database(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        await lab.service.create_project("secret keeper")
        for file in await asyncio.to_thread(lambda: list(fast_home.glob("shardlift.db*"))):
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


async def test_secrets_are_not_kept_where_a_digest_does(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        made = await lab.service.create_project("one")
        key = await lab.service.token_key(made.token)
        assert key is not None
        assert (key.ak, key.project_id, key.sk) == (made.ak, made.project_id, "")
        assert await lab.service.token_key(made.token + "x") is None
    for file in await asyncio.to_thread(lambda: list(fast_home.glob("shardlift.db*"))):
        assert made.token.encode() not in file.read_bytes()
        assert made.sk.encode() not in file.read_bytes()


async def test_waiting_readers_are_woken_by_a_change(fast_home: Path) -> None:
    """By this process and by another one alike (a second connection pool stands for it)."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.DRAIN)
        # 60 virtual seconds would pass at once; a real clock makes the wait real.
        waiting = asyncio.create_task(lab.service.store.database.wait_change(None, 0))
        mark = await waiting
        waiting = asyncio.create_task(lab.service.store.database.wait_change(mark, 30))
        async with open_database(lab.service.settings.database_path) as other, other.write() as connection:
            await connection.exec_driver_sql("UPDATE task SET revision = revision + 1")
        assert await asyncio.wait_for(waiting, 10) != mark
        assert (await lab.task(task)).revision == task.revision + 1
