"""Rows of access keys and agencies. Secrets are sealed inside the transaction that writes them.

Why inside: a rotation of the master key puts the new key into the file before its own transaction begins. A key that is
made at the same moment is either written before that transaction and sealed anew by it, or sealed with the new key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shardlift.errors import NotFoundError, UsageError
from shardlift.store.database import Database
from shardlift.store.hooks import reseal_hooks
from shardlift.store.sealed import key_ids
from shardlift.store.store import insert_project
from shardlift.store.tables import access_key, agency, project
from shardlift.store.vault import Vault

_PROJECT_KEYS_MAX = 50
_PROJECT_AGENCIES_MAX = 100


@dataclass(frozen=True, slots=True)
class NewSecrets:
    """What a key is made of, before any of it is encrypted or hashed."""

    ak: str
    sk: str
    token: str


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A stored key without its secrets. `previous_until`: the end of the overlap after a rotation."""

    ak: str
    project_id: str
    project: str
    name: str
    created_at: datetime
    last_used_at: datetime | None
    previous_until: datetime | None


@dataclass(frozen=True, slots=True)
class KeySecrets:
    """A key as signatures are checked with it; `previous_sk` counts until `previous_until`."""

    ak: str
    project_id: str
    sk: str
    previous_sk: str | None
    previous_until: datetime | None


class KeyStore:
    """Keys and agencies of all projects."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        self.vault = vault

    # keys

    async def prepare(self) -> None:
        """Makes the master key if there is nothing yet that needs one. Raises VaultError when one is missing."""
        async with self.database.read() as connection:
            self.vault.prepare(await key_ids(connection))

    async def check(self) -> int:
        """Opens every secret once, so that a wrong master key is known at the start. Returns how many there are."""
        await self.prepare()
        async with self.database.read() as connection:
            rows = (await connection.execute(select(access_key))).all()
        for row in rows:
            self._secrets(row)
        return len(rows)

    async def seal_plaintext(self) -> int:
        """Encrypts what an older version kept in the clear, and leaves no trace of it in the file. How many it were."""
        plain = access_key.c.secret.not_like("v1.%")
        async with self.database.read() as connection:
            if await connection.scalar(select(access_key.c.ak).where(plain).limit(1)) is None:
                return 0
        async with self.database.write() as connection:
            self.vault.prepare(await key_ids(connection))
            rows = (await connection.execute(select(access_key.c.ak, access_key.c.secret).where(plain))).all()
            for row in rows:
                await connection.execute(
                    update(access_key)
                    .where(access_key.c.ak == row.ak)
                    .values(secret=self.vault.seal(row.secret, _row(row.ak)))
                )
        await self.database.purge()
        return len(rows)

    async def reseal(self) -> int:
        """Seals every secret anew with the first key of the file, in one transaction. How many keys there are."""
        async with self.database.write() as connection:
            rows = (await connection.execute(select(access_key))).all()
            for row in rows:
                opened = self._secrets(row)
                previous = None if opened.previous_sk is None else self.vault.seal(opened.previous_sk, _row(row.ak))
                await connection.execute(
                    update(access_key)
                    .where(access_key.c.ak == row.ak)
                    .values(secret=self.vault.seal(opened.sk, _row(row.ak)), previous_secret=previous)
                )
            await reseal_hooks(connection, self.vault)
        return len(rows)

    async def add(
        self, project_id: str, new: NewSecrets, name: str, at: datetime, *, project_name: str | None = None
    ) -> str:
        """Writes a key, and with `project_name` its new project too. Returns the project's name."""
        async with self.database.write() as connection:
            self.vault.prepare(await key_ids(connection))
            if project_name is not None:
                await insert_project(connection, project_id, project_name, at)
            owner = await connection.scalar(select(project.c.name).where(project.c.id == project_id))
            if owner is None:
                raise NotFoundError(f"no project {project_id!r}", field="project", value=project_id)
            if await _count(connection, access_key, project_id) >= _PROJECT_KEYS_MAX:
                raise UsageError(
                    f"a project has at most {_PROJECT_KEYS_MAX} keys",
                    field="project",
                    value=owner,
                    remedy="revoke one that is no longer used; `shardlift key list` shows when each was",
                )
            await connection.execute(
                insert(access_key).values(
                    ak=new.ak,
                    project_id=project_id,
                    name=name,
                    secret=self.vault.seal(new.sk, _row(new.ak)),
                    token_sha256=token_digest(new.token),
                    created_at=at,
                )
            )
            return str(owner)

    async def list(self, project_id: str | None) -> tuple[KeyRow, ...]:
        """Of one project or of all, oldest first."""
        query = select(access_key, project.c.name.label("project")).join(project).order_by(access_key.c.created_at)
        if project_id is not None:
            query = query.where(access_key.c.project_id == project_id)
        async with self.database.read() as connection:
            return tuple(_key_row(row) for row in await connection.execute(query))

    async def rotate(self, new: NewSecrets, until: datetime, at: datetime, project_id: str | None) -> KeyRow:
        """New secrets for the key `new.ak`; the old ones count until `until`, those before them not at all any more."""
        async with self.database.write() as connection:
            self.vault.prepare(await key_ids(connection))
            row = await _one(connection, new.ak, project_id)
            overlaps = until > at
            await connection.execute(
                update(access_key)
                .where(access_key.c.ak == new.ak)
                .values(
                    secret=self.vault.seal(new.sk, _row(new.ak)),
                    token_sha256=token_digest(new.token),
                    previous_secret=row.secret if overlaps else None,
                    previous_token_sha256=row.token_sha256 if overlaps else None,
                    previous_until=until if overlaps else None,
                )
            )
            return _key_row(await _one(connection, new.ak, project_id))

    async def revoke(self, ak: str, project_id: str | None, *, last: bool) -> KeyRow:
        """Removes the key and its secrets at once. A project's last key only when `last` says so."""
        async with self.database.write() as connection:
            row = _key_row(await _one(connection, ak, project_id))
            if not last and await _count(connection, access_key, row.project_id) == 1:
                raise UsageError(
                    f"{ak} is the last key of project {row.project}: without one nobody can call its API",
                    field="ak",
                    value=ak,
                    remedy="create another key first, or say --last",
                )
            await connection.execute(delete(access_key).where(access_key.c.ak == ak))
            return row

    async def owner(self, ak: str) -> str | None:
        """The project that the key belongs to."""
        async with self.database.read() as connection:
            return await connection.scalar(select(access_key.c.project_id).where(access_key.c.ak == ak))

    async def find(self, ak: str) -> KeySecrets | None:
        """The key with its secrets in the clear. Raises VaultError when they do not open."""
        async with self.database.read() as connection:
            row = (await connection.execute(select(access_key).where(access_key.c.ak == ak))).one_or_none()
        return None if row is None else self._secrets(row)

    async def find_token(self, token: str, at: datetime) -> tuple[str, str, datetime | None] | None:
        """(ak, project id, until when this token counts; None: no end set) of a token that counts at `at`."""
        digest = token_digest(token)
        query = select(
            access_key.c.ak, access_key.c.project_id, access_key.c.token_sha256, access_key.c.previous_until
        ).where(or_(access_key.c.token_sha256 == digest, access_key.c.previous_token_sha256 == digest))
        async with self.database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        if row.token_sha256 == digest:
            return row.ak, row.project_id, None
        return (row.ak, row.project_id, row.previous_until) if at < row.previous_until else None

    async def used(self, ak: str, at: datetime, every: timedelta) -> None:
        """Notes the use, unless one was noted less than `every` ago."""
        stale = or_(access_key.c.last_used_at.is_(None), access_key.c.last_used_at <= at - every)
        async with self.database.write() as connection:
            await connection.execute(update(access_key).where(access_key.c.ak == ak, stale).values(last_used_at=at))

    async def forget_expired(self, at: datetime) -> None:
        """Removes old secrets whose overlap has ended. They have not counted since; now they are gone too."""
        over = access_key.c.previous_until <= at
        async with self.database.write() as connection:
            await connection.execute(
                update(access_key)
                .where(over)
                .values(previous_secret=None, previous_token_sha256=None, previous_until=None)
            )

    def _secrets(self, row: Row[Any]) -> KeySecrets:
        previous = row.previous_secret
        return KeySecrets(
            row.ak,
            row.project_id,
            self.vault.open(row.secret, _row(row.ak)),
            None if previous is None else self.vault.open(previous, _row(row.ak)),
            row.previous_until,
        )

    # agencies

    async def add_agency(self, project_id: str, name: str, actions: tuple[str, ...], at: datetime) -> None:
        async with self.database.write() as connection:
            where = (agency.c.project_id == project_id, agency.c.name == name)
            if await connection.scalar(select(agency.c.name).where(*where)) is not None:
                raise UsageError(
                    f"there is an agency {name!r} already",
                    field="name",
                    value=name,
                    remedy="delete it first, or choose another name",
                )
            if await _count(connection, agency, project_id) >= _PROJECT_AGENCIES_MAX:
                raise UsageError(
                    f"a project has at most {_PROJECT_AGENCIES_MAX} agencies",
                    field="name",
                    value=name,
                    remedy="delete one that is no longer used",
                )
            await connection.execute(
                insert(agency).values(project_id=project_id, name=name, actions=list(actions), created_at=at)
            )

    async def agencies(self, project_id: str) -> dict[str, tuple[tuple[str, ...], datetime]]:
        """(actions, when it was made) by name, in the order of names."""
        query = select(agency).where(agency.c.project_id == project_id).order_by(agency.c.name)
        async with self.database.read() as connection:
            return {row.name: (tuple(row.actions), row.created_at) for row in await connection.execute(query)}

    async def remove_agency(self, project_id: str, name: str) -> None:
        async with self.database.write() as connection:
            done = await connection.execute(
                delete(agency).where(agency.c.project_id == project_id, agency.c.name == name)
            )
            if done.rowcount != 1:
                raise NotFoundError(
                    f"no agency {name!r}", field="name", value=name, remedy="`shardlift agency list` shows them"
                )


def token_digest(token: str) -> str:
    """Tokens are only ever checked, so only their digest is kept. They have 256 random bits: no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def _row(ak: str) -> str:
    """What a secret is bound to by its encryption."""
    return f"access_key/{ak}"


async def _count(connection: AsyncConnection, table: Any, project_id: str) -> int:
    query = select(func.count()).select_from(table).where(table.c.project_id == project_id)
    return await connection.scalar(query) or 0


async def _one(connection: AsyncConnection, ak: str, project_id: str | None) -> Row[Any]:
    query = select(access_key, project.c.name.label("project")).join(project).where(access_key.c.ak == ak)
    if project_id is not None:
        query = query.where(access_key.c.project_id == project_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFoundError(f"no key {ak!r}", field="ak", value=ak, remedy="`shardlift key list` shows them")
    return row


def _key_row(row: Row[Any]) -> KeyRow:
    return KeyRow(row.ak, row.project_id, row.project, row.name, row.created_at, row.last_used_at, row.previous_until)
