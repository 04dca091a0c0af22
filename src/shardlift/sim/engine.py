"""The REST API of a simulated cluster."""

from __future__ import annotations

from datetime import UTC, datetime

from shardlift.errors import EngineError
from shardlift.model import (
    ClusterSettings,
    CopyState,
    Decision,
    Explanation,
    Health,
    HealthSeen,
    IndexSeen,
    Move,
    MoveVerdict,
    NodeSeen,
    Observation,
    Recovery,
    ShardCopy,
    VotingSeen,
)
from shardlift.sim.world import Copy, SimNode, World

_COPY_BYTES = 1_000_000
_DISK_BYTES = 10**12


class SimEngine:
    """Answers from the world's state; every call lets the world go on by one tick, as time would."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def observe(self) -> Observation:
        world = self._alive()
        return Observation(
            at=datetime.now(UTC),
            health=self._health(timed_out=False),
            nodes=tuple(_member(node, world) for node in world.nodes.values() if node.up),
            elected=world.elected,
            shards=await self.shards(),
            indices=self._indices(),
            settings=await self.settings(),
            voting=await self.voting(),
            running_snapshots=0,
            snapshotted=frozenset(),
        )

    async def nodes(self) -> tuple[NodeSeen, ...]:
        world = self._alive()
        return tuple(_member(node, world) for node in world.nodes.values() if node.up)

    async def elected(self) -> str | None:
        return self._alive().elected

    async def answers(self, node: str) -> bool:
        return self._world.nodes[node].up

    async def health(
        self, *, wait_settled: bool = False, wait_status: Health | None = None, timeout_s: float = 0
    ) -> HealthSeen:
        self._alive().tick()
        seen = self._health(timed_out=False)
        waited_in_vain = (wait_settled and not seen.settled) or (wait_status is not None and seen.status != wait_status)
        return self._health(timed_out=waited_in_vain and timeout_s > 0)

    async def shards(self) -> tuple[ShardCopy, ...]:
        return tuple(
            ShardCopy(
                index=copy.index,
                shard=copy.shard,
                primary=copy.primary,
                state=copy.state,
                node=copy.node,
                relocating_to=copy.target,
                size_bytes=_COPY_BYTES,
                unassigned_reason="NODE_LEFT" if copy.node is None else None,
            )
            for copy in self._alive().copies
        )

    async def settings(self) -> ClusterSettings:
        world = self._alive()
        return ClusterSettings(dict(world.persistent), dict(world.transient))

    async def put_setting(self, layer: str, key: str, value: str | None) -> None:
        world = self._alive()
        world.fault("before", "put_setting", key)
        where = {"persistent": world.persistent, "transient": world.transient}[layer]
        if value is None:
            where.pop(key, None)
        else:
            where[key] = value
        world.reroute()
        world.fault("after", "put_setting", key)

    async def voting(self) -> VotingSeen | None:
        world = self._alive()
        ids = {node.node_id for node in world.nodes.values() if node.name not in world.voting_excluded}
        return VotingSeen(frozenset(ids), frozenset(world.voting_excluded))

    async def exclude_from_voting(self, node: str) -> bool:
        world = self._alive()
        world.fault("before", "exclude_from_voting", node)
        world.exclude_from_voting(node)
        world.fault("after", "exclude_from_voting", node)
        return True

    async def clear_voting_exclusions(self) -> None:
        world = self._alive()
        world.fault("before", "clear_voting_exclusions", "")
        world.voting_excluded.clear()
        world.fault("after", "clear_voting_exclusions", "")

    async def explain(self, copy: ShardCopy) -> Explanation:
        mine = next(one for one in self._alive().copies if one.group == copy.group and one.node == copy.node)
        decisions = (
            (Decision("filter", "NO", "pinned by an index filter"),)
            if mine.pinned
            else (Decision("same_shard", "NO", "a copy of this shard is on every other node"),)
        )
        return Explanation(copy.index, copy.shard, copy.primary, "no", decisions)

    async def try_moves(self, moves: tuple[Move, ...]) -> tuple[MoveVerdict, ...]:
        self._alive()
        return tuple(MoveVerdict(move, allowed=True, decisions=()) for move in moves)

    async def flush(self) -> None:
        self._alive()

    async def in_flight(self, node: str) -> int | None:
        return 0 if self._world.nodes[node].up else None

    async def recoveries(self) -> tuple[Recovery, ...]:
        now_ms = int(datetime.now(UTC).timestamp() * 1000) + 86_400_000
        return tuple(
            Recovery(copy.index, copy.shard, source, target, now_ms + at, _COPY_BYTES, done=True)
            for at, (copy, source, target) in enumerate(self._alive().recoveries)
        )

    async def close(self) -> None:
        return None

    def _alive(self) -> World:
        if not any(node.up for node in self._world.nodes.values()):
            raise EngineError("no node answers")
        return self._world

    def _health(self, *, timed_out: bool) -> HealthSeen:
        copies = self._world.copies
        count = {state: sum(copy.state is state for copy in copies) for state in CopyState}
        if any(copy.primary and copy.node is None for copy in copies):
            status = Health.RED
        elif count[CopyState.UNASSIGNED] or count[CopyState.INITIALIZING]:
            status = Health.YELLOW
        else:
            status = Health.GREEN
        up = sum(node.up for node in self._world.nodes.values())
        return HealthSeen(
            status=status,
            nodes=up,
            data_nodes=up,
            active_shards=count[CopyState.STARTED] + count[CopyState.RELOCATING],
            relocating=count[CopyState.RELOCATING],
            initializing=count[CopyState.INITIALIZING],
            unassigned=count[CopyState.UNASSIGNED],
            pending_tasks=0,
            timed_out=timed_out,
        )

    def _indices(self) -> tuple[IndexSeen, ...]:
        first = next(iter(self._world.nodes.values()))
        groups: dict[str, list[Copy]] = {}
        for copy in self._world.copies:
            groups.setdefault(copy.index, []).append(copy)
        return tuple(
            IndexSeen(
                name=name,
                created_on=min(node.version for node in self._world.nodes.values()),
                created_by=first.engine,
                primaries=sum(copy.primary for copy in copies),
                replicas=len(copies) // max(len({copy.shard for copy in copies}), 1) - 1,
                closed=False,
                settings={},
            )
            for name, copies in groups.items()
        )


def _member(node: SimNode, world: World) -> NodeSeen:
    del world
    return NodeSeen(
        name=node.name,
        id=node.node_id,
        ephemeral_id=node.ephemeral_id,
        address=node.address,
        engine=node.engine,
        version=node.version,
        roles=frozenset({"data", "ingest", "cluster_manager"}),
        attributes={"zone": node.zone},
        plugins=(),
        disk_total_bytes=_DISK_BYTES,
        disk_available_bytes=_DISK_BYTES // 2,
        cpu_percent=5,
        load_1m=0.1,
        processors=2,
        search_queue=0,
        write_queue=0,
    )
