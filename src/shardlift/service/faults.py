"""Faults on demand, for simulated clusters alone."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardlift.backends import Backends
from shardlift.errors import UsageError
from shardlift.model import SUB_STEPS, Cluster, Fault, FaultKind
from shardlift.sim import Fleet, FleetBackend, Site, faults

if TYPE_CHECKING:
    from shardlift.backend import Backend
    from shardlift.service.service import Service

STATUSES = (429, 500, 502, 503, 504)
TIMES_MAX = 1000
FACTOR_MAX = 1000
MESSAGE_MAX = 500
_STATUS = 500
# By kind: what must be given, and what may be given besides.
_FIELDS: Mapping[FaultKind, tuple[frozenset[str], frozenset[str]]] = {
    FaultKind.STEP: (frozenset({"order"}), frozenset({"node", "times", "message"})),
    FaultKind.CALL: (frozenset({"call"}), frozenset({"status", "times", "message", "lost"})),
    FaultKind.SLOW: (frozenset({"node", "factor"}), frozenset()),
    FaultKind.NO_START: (frozenset({"node"}), frozenset({"times"})),
    FaultKind.DIES: (frozenset({"node"}), frozenset()),
    FaultKind.HANGS: (frozenset({"node"}), frozenset()),
    FaultKind.DISK_FULL: (frozenset({"node"}), frozenset()),
}


@dataclass(frozen=True, slots=True)
class FaultRequest:
    """What is asked for; `model.Fault` tells the fields. `node` may be a name, an id, or a place such as `2`."""

    kind: FaultKind
    node: str | None = None
    order: int | None = None
    call: str | None = None
    status: int | None = None
    factor: float | None = None
    times: int | None = None
    message: str | None = None
    lost: bool | None = None


def fleet_of(backend: Backend) -> Fleet | None:
    """The simulated clusters behind a backend; None where there can be none."""
    return backend.fleet if isinstance(backend, Backends | FleetBackend) else None


class Faults:
    """Adds, lists and clears faults of one cluster at a time."""

    def __init__(self, service: Service, calls: Collection[str]) -> None:
        """`calls`: names of the CSS operations that a fault can be asked for."""
        self._service = service
        self._calls = calls

    async def add(self, ref: str, asked: FaultRequest, project_id: str | None = None) -> Fault:
        """Lets the fault begin. Raises UsageError naming the first field that is wrong, or for a real cluster."""
        cluster = await self._service.cluster(ref, project_id)
        site = self._site(cluster)
        _check(asked, self._calls)
        striking = asked.kind in {FaultKind.STEP, FaultKind.CALL}
        fault = Fault(
            id=secrets.token_hex(4),
            kind=asked.kind,
            added_at=self._service.clock.now(),
            node=None if asked.node is None else _node_name(cluster, asked.node),
            order=asked.order,
            call=asked.call,
            status=(asked.status or _STATUS) if asked.kind is FaultKind.CALL else None,
            factor=asked.factor,
            times=1 if asked.times is None and striking else asked.times,
            message=asked.message,
            lost=bool(asked.lost),
        )
        faults.add(site, fault)
        return fault

    async def listed(self, ref: str, project_id: str | None = None) -> tuple[Fault, ...]:
        """Those that are in force or will strike yet, oldest first."""
        return faults.listed(self._site(await self._service.cluster(ref, project_id)))

    async def clear(self, ref: str, fault_id: str | None, project_id: str | None = None) -> tuple[Fault, ...]:
        """Ends one, or all with None, and mends what they broke. Returns them. Raises NotFoundError."""
        return faults.clear(self._site(await self._service.cluster(ref, project_id)), fault_id)

    def _site(self, cluster: Cluster) -> Site:
        fleet = fleet_of(self._service.backend)
        if cluster.driver != "sim" or fleet is None:
            raise UsageError(
                f"{cluster.name} runs on real nodes, and faults are for simulated clusters alone",
                field="cluster",
                value=cluster.id,
                remedy="make one with `shardlift cluster create NAME --driver sim`",
            )
        return fleet.site(cluster.id)


def _check(asked: FaultRequest, calls: Collection[str]) -> None:
    required, allowed = _FIELDS[asked.kind]
    given = {name: value for name in FaultRequest.__slots__ if (value := getattr(asked, name)) is not None}
    del given["kind"]
    for name in sorted(required - given.keys()):
        raise UsageError(
            f"a fault of kind {asked.kind} needs {name}", field=name, value=None, remedy="docs/emulator.md lists them"
        )
    for name in sorted(given.keys() - required - allowed):
        takes = ", ".join(sorted(required | allowed))
        raise UsageError(
            f"a fault of kind {asked.kind} has no {name}", field=name, value=given[name], remedy=f"it takes {takes}"
        )
    if asked.order is not None and not 0 <= asked.order < len(SUB_STEPS):
        _wrong("order", asked.order, f"a sub-step is 0 to {len(SUB_STEPS) - 1}")
    if asked.call is not None and asked.call not in calls:
        _wrong("call", asked.call, f"a call is one of {', '.join(sorted(calls))}")
    if asked.status is not None and asked.status not in STATUSES:
        _wrong("status", asked.status, f"a status is one of {', '.join(map(str, STATUSES))}")
    if asked.factor is not None and not 1 < asked.factor <= FACTOR_MAX:
        _wrong("factor", asked.factor, f"a factor is more than 1, and {FACTOR_MAX} at most")
    if asked.times is not None and not 1 <= asked.times <= TIMES_MAX:
        _wrong("times", asked.times, f"times is 1 to {TIMES_MAX}")
    if asked.message is not None and not (0 < len(asked.message) <= MESSAGE_MAX and asked.message.isprintable()):
        _wrong("message", asked.message[:40], f"a message has 1 to {MESSAGE_MAX} printable characters")


def _wrong(field: str, value: object, rule: str) -> None:
    raise UsageError(rule, field=field, value=value, remedy="give one of those")


def _node_name(cluster: Cluster, ref: str) -> str:
    for place, node in enumerate(cluster.nodes, 1):
        if ref in {node.name, node.id, str(place)}:
            return node.name
    raise UsageError(
        f"{cluster.name} has no node {ref!r}",
        field="node",
        value=ref,
        remedy=f"give a name, an id, or a place from 1 to {len(cluster.nodes)}",
    )
