"""Which master keys the database needs."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shardlift.store.tables import access_key, cluster
from shardlift.store.vault import key_id_of

_SEALED = (access_key.c.secret, access_key.c.previous_secret, cluster.c.traffic_hook_sealed)


async def key_ids(connection: AsyncConnection) -> frozenset[str]:
    """Ids of the master keys that anything is sealed with."""
    found: set[str] = set()
    for column in _SEALED:
        for sealed in (await connection.execute(select(column).where(column.is_not(None)))).scalars():
            found |= {key_id} if (key_id := key_id_of(sealed)) is not None else set()
    return frozenset(found)
