"""Traffic hooks in the database: what may be shown in the clear, all of it sealed, since a URL can be a secret."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shardlift.errors import BusyError, NotFoundError
from shardlift.model import HookKind, InstanceType, Leftovers, TrafficHook
from shardlift.store.database import Database
from shardlift.store.sealed import key_ids
from shardlift.store.tables import cluster, setting_change, task
from shardlift.store.vault import Vault

TRAFFIC = "traffic"
"""The kind of a row in the ledger that names a node taken out of its balancer."""


class HookStore:
    """Hooks of all clusters."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def read(self, cluster_id: str) -> TrafficHook | None:
        """Raises VaultError when the sealed text does not open."""
        async with self._database.read() as connection:
            sealed = await connection.scalar(select(cluster.c.traffic_hook_sealed).where(cluster.c.id == cluster_id))
        return None if sealed is None else _from_json(json.loads(self._vault.open(sealed, _row(cluster_id))))

    async def write(self, cluster_id: str, hook: TrafficHook | None) -> tuple[str, ...]:
        """Stores the hook, None for none. Returns names of nodes that an earlier one has left out of its balancer.

        Raises BusyError while a task runs on the cluster: a node that it has led clients away from must come back by
        the hook that it left by.
        """
        async with self._database.write() as connection:
            name = await connection.scalar(select(cluster.c.name).where(cluster.c.id == cluster_id))
            if name is None:
                raise NotFoundError(f"no cluster {cluster_id!r}", field="cluster", value=cluster_id)
            running = select(task.c.id).where(task.c.cluster_id == cluster_id, task.c.status == "RUNNING")
            if await connection.scalar(running) is not None:
                raise BusyError(
                    f"a task runs on cluster {name}, and its traffic hook stays as it is until that ends",
                    field="cluster",
                    value=cluster_id,
                    remedy=f"`shardlift task list {name}` shows it; wait for it, or abort it",
                )
            values: dict[str, Any] = {"traffic_hook": null(), "traffic_hook_sealed": None}
            if hook is not None:
                self._vault.prepare(await key_ids(connection))
                sealed = self._vault.seal(json.dumps(_to_json(hook)), _row(cluster_id))
                values = {"traffic_hook": hook.document(), "traffic_hook_sealed": sealed}
            await connection.execute(update(cluster).where(cluster.c.id == cluster_id).values(values))
            out = select(setting_change.c.ours).where(
                setting_change.c.cluster_id == cluster_id,
                setting_change.c.kind == TRAFFIC,
                setting_change.c.restored.is_(False),
            )
            return tuple(sorted(set((await connection.execute(out)).scalars())))


async def reseal_hooks(connection: AsyncConnection, vault: Vault) -> None:
    """Seals every hook anew with the first key of the file."""
    query = select(cluster.c.id, cluster.c.traffic_hook_sealed).where(cluster.c.traffic_hook_sealed.is_not(None))
    for row in (await connection.execute(query)).all():
        sealed = vault.seal(vault.open(row.traffic_hook_sealed, _row(row.id)), _row(row.id))
        await connection.execute(update(cluster).where(cluster.c.id == row.id).values(traffic_hook_sealed=sealed))


def _row(cluster_id: str) -> str:
    """What a hook is bound to by its encryption."""
    return f"cluster/{cluster_id}/traffic_hook"


def _to_json(hook: TrafficHook) -> dict[str, Any]:
    return {
        "kind": str(hook.kind),
        "types": [str(one) for one in hook.types],
        "timeout_s": hook.timeout_s,
        "in_flight_timeout_s": hook.in_flight_timeout_s,
        "leftovers": str(hook.leftovers),
        "argv": list(hook.argv),
        "url": hook.url,
        "method": hook.method,
        "headers": [list(header) for header in hook.headers],
        "socket": hook.socket,
        "backends": list(hook.backends),
    }


def _from_json(data: dict[str, Any]) -> TrafficHook:
    return TrafficHook(
        kind=HookKind(data["kind"]),
        types=tuple(InstanceType(one) for one in data["types"]),
        timeout_s=data["timeout_s"],
        in_flight_timeout_s=data["in_flight_timeout_s"],
        leftovers=Leftovers(data["leftovers"]),
        argv=tuple(data["argv"]),
        url=data["url"],
        method=data["method"],
        headers=tuple((name, value) for name, value in data["headers"]),
        socket=data["socket"],
        backends=tuple(data["backends"]),
    )
