"""The REST API of a simulated cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

from shardlift.errors import EngineError
from shardlift.model import (
    ClusterSettings,
    CopyState,
    Decision,
    EngineKind,
    Explanation,
    Health,
    HealthSeen,
    IndexSeen,
    Move,
    MoveVerdict,
    NodeSeen,
    Observation,
    Recovery,
    RetainedCopy,
    ShardCopy,
    VotingSeen,
)
from shardlift.sim import membership, movement
from shardlift.sim.deciders import may_remain, verdicts
from shardlift.sim.doors import Door, OpenDoor
from shardlift.sim.in_force import DEFAULT_RATE
from shardlift.sim.parts import Copy, SimNode
from shardlift.sim.world import World

_NO_MASTER = 503
_NOT_FOUND = 400
_CALL_S = 0.01
_FIRST_VOTING = 7
_WATERMARKS = {"low": "85%", "high": "90%", "flood_stage": "95%"}


class SimEngine:
    """Answers from the world's state, through `door`; each call takes `call_s`, after it has done its work."""

    def __init__(self, world: World, door: Door | None = None, call_s: float = _CALL_S) -> None:
        self._world = world
        self._door = door or OpenDoor()
        self._call_s = call_s

    async def observe(self) -> Observation:
        async with self._call("observe") as world:
            return Observation(
                at=world.clock.now(),
                health=_health(world, timed_out=False),
                nodes=_members(world),
                elected=world.elected,
                shards=_shards(world, sizes=True),
                indices=_indices(world),
                settings=ClusterSettings(dict(world.persistent), dict(world.transient), _defaults()),
                voting=_voting(world),
                running_snapshots=int(bool(world.snapshotting)),
                snapshotted=frozenset(),
                running_work=(),
                dangling=(),
            )

    async def nodes(self) -> tuple[NodeSeen, ...]:
        async with self._call("nodes") as world:
            return _members(world)

    async def nodes_with_load(self) -> tuple[NodeSeen, ...]:
        async with self._call("nodes_with_load") as world:
            return _members(world)

    async def elected(self) -> str | None:
        async with self._call("elected", master=False) as world:
            return world.elected

    async def answers(self, node: str) -> bool:
        try:
            await self._door.before("answers", node, effect=False)
            self._world.advance()
            mine = self._world.nodes[node]
            answer = mine.serving and mine.pid is not None and not mine.hung
            await self._done("answers", node, effect=False)
        except EngineError:
            return False  # as the protocol has it: whoever does not answer, does not answer
        return answer

    async def health(
        self, *, wait_settled: bool = False, wait_status: Health | None = None, timeout_s: float = 0
    ) -> HealthSeen:
        """Sleeps until the next event of the world, again and again, until what is waited for is there."""
        await self._door.before("health", "", effect=False)
        clock, until_s = self._world.clock, self._world.clock.elapsed_s() + timeout_s
        while True:  # ends by the clock
            world = self._answering()
            seen = _health(world, timed_out=False)
            wants = (wait_settled and not seen.settled) or (wait_status is not None and seen.status is not wait_status)
            left_s = until_s - clock.elapsed_s()
            if not wants or left_s <= 0:
                break
            upcoming = world.next_event_s()
            pause_s = left_s if upcoming is None else min(left_s, upcoming - clock.elapsed_s())
            await clock.sleep(max(pause_s, 0.001))
        await self._done("health", "", effect=False)
        return _health(self._world, timed_out=wants and timeout_s > 0)

    async def shards(self) -> tuple[ShardCopy, ...]:
        async with self._call("shards") as world:
            return _shards(world, sizes=False)

    async def settings(self, *, defaults: bool = False) -> ClusterSettings:
        async with self._call("settings") as world:
            known = _defaults() if defaults else {}
            return ClusterSettings(dict(world.persistent), dict(world.transient), known)

    async def configured(self, key: str) -> Mapping[str, str | None]:
        """Simulated nodes have no configuration files."""
        del key
        async with self._call("configured") as world:
            return {member.name: None for member in _members(world)}

    async def put_setting(self, layer: str, key: str, value: str | None) -> None:
        async with self._call("put_setting", f"{layer} {key}={value}", effect=True) as world:
            world.put_cluster_setting(layer, key, value)

    async def voting(self) -> VotingSeen | None:
        async with self._call("voting") as world:
            return _voting(world)

    async def exclude_from_voting(self, node: str) -> bool:
        async with self._call("exclude_from_voting", node, effect=True) as world:
            if _elder(world):
                return False
            membership.exclude_from_voting(world, node)
            return True

    async def clear_voting_exclusions(self) -> None:
        async with self._call("clear_voting_exclusions", effect=True) as world:
            membership.clear_exclusions(world)

    async def explain(self, copy: ShardCopy) -> Explanation:
        async with self._call("explain", f"{copy.index}[{copy.shard}]") as world:
            mine = next((one for one in world.group(copy.group) if one.node == copy.node), None)
            if mine is None:
                raise EngineError(f"explain: no copy of {copy.index}[{copy.shard}] on {copy.node}", status=_NOT_FOUND)
            return _explained(world, mine)

    async def try_moves(self, moves: tuple[Move, ...]) -> tuple[MoveVerdict, ...]:
        async with self._call("try_moves") as world:
            return tuple(_tried(world, move) for move in moves)

    async def move(self, moves: tuple[Move, ...]) -> tuple[MoveVerdict, ...]:
        async with self._call("move", effect=True) as world:
            verdicts = tuple(_tried(world, move) for move in moves)
            for verdict in verdicts:
                if verdict.allowed:
                    movement.begin_move(world, verdict.move)
            return verdicts

    async def flush(self) -> None:
        async with self._call("flush", effect=True):
            return

    async def retained(self, node: str) -> tuple[RetainedCopy, ...]:
        async with self._call("retained", node, master=False) as world:
            return tuple(_retained(world, copy) for copy in world.copies_on(node) if len(world.group(copy.group)) > 1)

    async def in_flight(self, node: str) -> int | None:
        self._world.advance()
        return self._world.requests.get(node, 0) if self._world.nodes[node].working else None

    async def recoveries(self) -> tuple[Recovery, ...]:
        async with self._call("recoveries") as world:
            return tuple(
                Recovery(
                    index=move.copy.index,
                    shard=move.copy.shard,
                    source=move.source,
                    target=move.target,
                    started_at_ms=move.started_at_ms,
                    bytes=move.total_bytes if move.done else int(move.total_bytes - max(move.left_bytes, 0)),
                    done=move.done,
                )
                for move in (*world.recovered, *world.moves)
            )

    async def close(self) -> None:
        return None

    @asynccontextmanager
    async def _call(
        self, call: str, where: str = "", *, effect: bool = False, master: bool = True
    ) -> AsyncIterator[World]:
        await self._door.before(call, where, effect=effect)
        if effect:
            with self._world.changing():
                yield self._answering(master=master)
        else:
            yield self._answering(master=master)
        await self._done(call, where, effect=effect)

    async def _done(self, call: str, where: str, *, effect: bool) -> None:
        # After the work, not before it: between a look at the lease and an effect no time may pass.
        await self._door.after(call, where, effect=effect)
        await self._world.clock.sleep(self._call_s)

    def _answering(self, *, master: bool = True) -> World:
        world = self._world
        world.advance()
        if not any(node.serving and node.working for node in world.nodes.values()):
            raise EngineError("no node answers")
        if master and (world.elected is None or not world.nodes[world.elected].working):
            raise EngineError("no elected master", status=_NO_MASTER)
        return world


def _elder(world: World) -> bool:
    """Whether some node is Elasticsearch 6, which knows no voting configuration."""
    return any(
        node.up and node.engine is EngineKind.ELASTICSEARCH and node.version.major < _FIRST_VOTING
        for node in world.nodes.values()
    )


def _voting(world: World) -> VotingSeen | None:
    return None if _elder(world) else VotingSeen(frozenset(world.voters), frozenset(world.voting_excluded))


def _defaults() -> dict[str, str]:
    watermarks = {f"cluster.routing.allocation.disk.watermark.{key}": value for key, value in _WATERMARKS.items()}
    return {**watermarks, "indices.recovery.max_bytes_per_sec": DEFAULT_RATE}


def _health(world: World, *, timed_out: bool) -> HealthSeen:
    count = {state: world.routing.count(state) for state in CopyState}
    if any(copy.primary for copy in world.routing.unassigned()):
        status = Health.RED
    elif count[CopyState.UNASSIGNED] or count[CopyState.INITIALIZING]:
        status = Health.YELLOW
    else:
        status = Health.GREEN
    members = [node for node in world.nodes.values() if node.up]
    return HealthSeen(
        status=status,
        nodes=len(members),
        data_nodes=sum(node.holds_data for node in members),
        active_shards=count[CopyState.STARTED] + count[CopyState.RELOCATING],
        relocating=count[CopyState.RELOCATING],
        initializing=count[CopyState.INITIALIZING],
        unassigned=count[CopyState.UNASSIGNED],
        pending_tasks=0,
        timed_out=timed_out,
    )


def _retained(world: World, copy: Copy) -> RetainedCopy:
    index, docs = world.indices[copy.index], max(copy.documents, 1)
    behind = docs if world.now_s < index.leases_renewed_s else 0
    return RetainedCopy(copy.index, copy.shard, docs, behind, index.copy_bytes)


def _shards(world: World, *, sizes: bool) -> tuple[ShardCopy, ...]:
    return world.routing.told(world.copies, world.indices, sizes=sizes)


def _indices(world: World) -> tuple[IndexSeen, ...]:
    return tuple(
        IndexSeen(
            name=index.name,
            created_on=index.created_on,
            created_by=index.created_by,
            primaries=index.primaries,
            replicas=index.replicas,
            closed=index.closed,
            settings=dict(index.settings),
        )
        for index in world.indices.values()
    )


def _members(world: World) -> tuple[NodeSeen, ...]:
    return tuple(_member(world, node) for node in world.nodes.values() if node.up and node.pid is not None)


def _member(world: World, node: SimNode) -> NodeSeen:
    available_bytes = max(node.disk_bytes - world.used_bytes(node), 0)
    changing = (
        node.node_id,
        node.ephemeral_id,
        node.address,
        node.engine,
        node.version,
        node.roles,
        node.zone,
        node.started_at_ms,
        node.disk_bytes,
        available_bytes,
        node.writes,
        node.load_1m,
    )
    # Of a thousand members a few have changed since they were told last.
    if node.told is None or node.told[0] != changing:
        node.told = changing, _node_seen(node, available_bytes)
    return node.told[1]


def _node_seen(node: SimNode, available_bytes: int) -> NodeSeen:
    return NodeSeen(
        name=node.name,
        id=node.node_id,
        ephemeral_id=node.ephemeral_id,
        address=node.address,
        engine=node.engine,
        version=node.version,
        roles=node.roles,
        attributes={"zone": node.zone},
        plugins=(),
        started_at_ms=node.started_at_ms,
        disk_total_bytes=node.disk_bytes,
        disk_available_bytes=available_bytes,
        heap_used_percent=40,
        cpu_percent=5,
        load_1m=node.load_1m,
        processors=2,
        search_queue=0,
        write_queue=0,
        search_total=0,
        search_time_ms=0,
        write_total=node.writes,
        write_time_ms=node.writes,
        rejected_total=0,
    )


def _explained(world: World, copy: Copy) -> Explanation:
    """As `_cluster/allocation/explain`: a copy on its way is not asked further."""
    if copy.state in (CopyState.RELOCATING, CopyState.INITIALIZING):
        return Explanation(copy.index, copy.shard, copy.primary, "yes", ())
    stays = tuple(may_remain(world, copy)) if copy.node is not None else ()
    said: list[Decision] = []
    words: list[str] = []
    for node in world.nodes.values():
        if node.up and node.holds_data and node.name != copy.node:
            here = verdicts(world, copy, node)
            said += here
            kinds = {one.verdict for one in here}
            words.append("no" if "NO" in kinds else "throttled" if kinds else "yes")
    word = next((one for one in ("yes", "throttled") if one in words), "no")
    return Explanation(copy.index, copy.shard, copy.primary, word, (*stays, *said))


def _tried(world: World, move: Move) -> MoveVerdict:
    copy = next((one for one in world.group((move.index, move.shard)) if one.node == move.source), None)
    if copy is None:
        said = [Decision("move_allocation_command", "NO", f"no such shard on {move.source}", move.target)]
    else:
        said = list(_objections(world, copy, move.target))
    return MoveVerdict(move, allowed=all(one.verdict != "NO" for one in said), decisions=tuple(said))


def _objections(world: World, copy: Copy, target: str) -> Iterator[Decision]:
    node = world.nodes.get(target)
    if node is None or not node.up:
        yield Decision("move_allocation_command", "NO", "no such node", target)
    else:
        yield from verdicts(world, copy, node)
