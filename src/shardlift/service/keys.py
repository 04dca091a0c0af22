"""Access keys: made, listed, rotated, revoked, and found for whoever signs with one."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import uuid
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import structlog

from shardlift.clock import Clock
from shardlift.errors import ShardliftError, UsageError
from shardlift.service.audit import note
from shardlift.service.requests import Credentials, Key
from shardlift.store.keys import KeyRow, KeyStore, NewSecrets
from shardlift.store.vault import VaultError

OVERLAP_MAX_S = 30 * 24 * 3600
OVERLAP_DEFAULT_S = 24 * 3600
_NAME_MAX = 64
_CACHED_MAX = 1024
_CACHED_S = 300.0
_USED_EVERY = timedelta(minutes=1)
_USED_EVERY_S = _USED_EVERY.total_seconds()

_log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    value: T
    mark: int
    until_s: float


class _Cache(Generic[T]):
    """What was read from the database, for as long as nobody has committed anything to it, and 300 s at most.

    So a key that another process has revoked or rotated counts no longer than without a cache, and while nothing is
    written a request costs neither a transaction nor a decryption.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()

    def get(self, name: str, mark: int, now_s: float) -> T | None:
        kept = self._kept.get(name)
        if kept is None:
            return None
        if kept.mark != mark or kept.until_s <= now_s:
            del self._kept[name]
            return None
        self._kept.move_to_end(name)
        return kept.value

    def put(self, name: str, value: T, mark: int, now_s: float) -> None:
        self._kept[name] = _Kept(value, mark, now_s + _CACHED_S)
        self._kept.move_to_end(name)
        while len(self._kept) > _CACHED_MAX:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class Keys:
    """The keys of all projects."""

    def __init__(self, store: KeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._found: _Cache[Key] = _Cache()
        self._tokens: _Cache[tuple[Key, datetime | None]] = _Cache()
        self._used: OrderedDict[str, float] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Brings what an older version kept in the clear under the master key. Costs one read when there is nothing."""
        count = await self._store.seal_plaintext()
        if count:
            _log.info("secrets_encrypted", keys=count, master_key=str(self._store.vault.path))

    async def check(self) -> int:
        """What a server does before it listens: the master key is there, and opens every secret. How many there are.

        Raises VaultError with a remedy.
        """
        await self._store.forget_expired(self._clock.now())
        return await self._store.check()

    async def create_project(self, name: str) -> Credentials:
        """A project with its first key, or neither."""
        project_id, new = uuid.uuid4().hex, _new_secrets()
        note("project.create", project_id=project_id, subject=name)
        await self._store.add(project_id, new, "", self._clock.now(), project_name=name)
        return _credentials(project_id, name, new)

    async def create(self, project_id: str, name: str = "") -> Credentials:
        """One more key of a project. Its secrets are in this answer and can not be read again."""
        if len(name) > _NAME_MAX or not name.isprintable():
            raise UsageError(
                f"a key's name has at most {_NAME_MAX} printable characters",
                field="name",
                value=name,
                remedy="choose another",
            )
        return await self._add(project_id, _new_secrets(), name)

    async def add(self, project_id: str, ak: str, sk: str, token: str) -> Credentials:
        """A key whose secrets are chosen by the caller: for emulators and tests, whose keys may be known to all."""
        return await self._add(project_id, NewSecrets(ak, sk, token), "")

    async def _add(self, project_id: str, new: NewSecrets, name: str) -> Credentials:
        note("key.create", project_id=project_id, subject=new.ak)
        project = await self._store.add(project_id, new, name, self._clock.now())
        return _credentials(project_id, project, new)

    async def list(self, project_id: str | None = None) -> tuple[KeyRow, ...]:
        """Without secrets, oldest first. An overlap that has ended is not told."""
        now = self._clock.now()
        return tuple(_without_past(row, now) for row in await self._store.list(project_id))

    async def rotate(self, ak: str, overlap_s: int = OVERLAP_DEFAULT_S, project_id: str | None = None) -> Credentials:
        """New secrets for a key; the old ones count for `overlap_s` more seconds (0: not at all), 30 days at most."""
        if not 0 <= overlap_s <= OVERLAP_MAX_S:
            raise UsageError(
                f"the old secret may count for 0 to {OVERLAP_MAX_S} more seconds",
                field="overlap_s",
                value=overlap_s,
                remedy="ask for less, and rotate when the new secret can be brought to its users within that time",
            )
        fresh = _new_secrets()
        new = NewSecrets(ak, fresh.sk, fresh.token)
        note("key.rotate", project_id=project_id or await self._store.owner(ak), subject=ak)
        now = self._clock.now()
        row = await self._store.rotate(new, now + timedelta(seconds=overlap_s), now, project_id)
        return _credentials(row.project_id, row.project, new)

    async def revoke(self, ak: str, project_id: str | None = None, *, last: bool = False) -> KeyRow:
        """The key and its secrets count no more from here on. A project's last key only with `last`."""
        note("key.revoke", project_id=project_id or await self._store.owner(ak), subject=ak)
        return await self._store.revoke(ak, project_id, last=last)

    async def rotate_master(self) -> tuple[str, str, int]:
        """A new master key, and every secret encrypted with it. (old id, new id, how many keys).

        A server that runs meanwhile goes on: it finds the new key by itself.
        """
        note("masterkey.rotate")
        vault = self._store.vault
        await self._store.prepare()
        with vault.lock():
            old, new = vault.begin_rotation()
            count = await self._store.reseal()
            vault.end_rotation()
        self._found.clear()
        await self._store.database.purge()
        return old, new, count

    def master_ids(self) -> tuple[str, ...]:
        """Ids of the master keys in the file, the one that encrypts first."""
        return self._store.vault.key_ids()

    # for whoever checks a request

    async def find(self, ak: str, *, fresh: bool = False) -> Key | None:
        """The key as signatures are checked with it. `fresh`: read it, whatever is known already.

        One whose secret does not open is as good as none; the log says so.
        """
        mark, now_s = self._store.database.mark(), self._clock.elapsed_s()
        known = None if fresh else self._found.get(ak, mark, now_s)
        if known is None:
            try:
                stored = await self._store.find(ak)
            except VaultError as error:
                _log.error("key_unusable", ak=ak, message=error.message, remedy=error.remedy)
                return None
            if stored is None:
                return None
            known = Key(stored.ak, stored.sk, stored.project_id, stored.previous_sk, stored.previous_until)
            self._found.put(ak, known, mark, now_s)
        return known

    async def find_token(self, token: str) -> Key | None:
        """The key that a token belongs to, without its secret."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        mark, now_s, now = self._store.database.mark(), self._clock.elapsed_s(), self._clock.now()
        known = self._tokens.get(digest, mark, now_s)
        if known is None:
            found = await self._store.find_token(token, now)
            if found is None:
                return None
            known = (Key(found[0], "", found[1]), found[2])
            self._tokens.put(digest, known, mark, now_s)
        key, until = known
        return key if until is None or now < until else None

    def used(self, ak: str) -> None:
        """Notes that somebody came in with the key: at most once a minute, and without making the request wait."""
        now_s = self._clock.elapsed_s()
        if now_s - self._used.get(ak, -_USED_EVERY_S) < _USED_EVERY_S:
            return
        self._used[ak] = now_s
        self._used.move_to_end(ak)
        while len(self._used) > _CACHED_MAX:
            self._used.popitem(last=False)
        writing = asyncio.create_task(self._write_used(ak))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def settle(self) -> None:
        """Waits for what `used` has under way."""
        await asyncio.gather(*self._writing)

    async def _write_used(self, ak: str) -> None:
        try:
            await self._store.used(ak, self._clock.now(), _USED_EVERY)
        except ShardliftError as error:
            # It only tells when a key was last used; no request fails for it.
            _log.warning("last_use_not_noted", message=error.message)


def _new_secrets() -> NewSecrets:
    return NewSecrets(secrets.token_hex(10).upper(), secrets.token_hex(20), secrets.token_urlsafe(32))


def _credentials(project_id: str, project: str, new: NewSecrets) -> Credentials:
    return Credentials(url="", project_id=project_id, project=project, ak=new.ak, sk=new.sk, token=new.token)


def _without_past(row: KeyRow, now: datetime) -> KeyRow:
    over = row.previous_until is not None and row.previous_until <= now
    return replace(row, previous_until=None) if over else row
