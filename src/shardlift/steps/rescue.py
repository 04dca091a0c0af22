"""Sub-step 0 of a node that keeps its data: only what is started nowhere else leaves it, by explicit moves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shardlift.checks import Subject
from shardlift.model import CopyState, Finding, Move, NodeSeen, ShardCopy
from shardlift.planner import departures
from shardlift.steps.context import READING_REST, AbortedError, Outcome, StepContext, StepFailedError
from shardlift.steps.window import begin_moves

Group = tuple[str, int]
_LONG_POLL_S = 5.0
_NAMED_MAX = 20


@dataclass(slots=True)
class _Rescue:
    """What is remembered from round to round. Lost in a crash, which only makes the plan be made anew.

    `planned`: moves still to be begun. `look_at_s`: when a new plan may be made at the earliest.
    """

    planned: list[tuple[Move, int]] = field(default_factory=list)
    sizes_bytes: dict[Group, int] = field(default_factory=dict)
    moved: set[Group] = field(default_factory=set)
    stuck: tuple[Finding, ...] = ()
    stuck_since_s: float = 0.0
    look_at_s: float = 0.0


async def rescue(ctx: StepContext) -> Outcome:
    """Moves the copies that have no other started one, and waits until every shard is started elsewhere."""
    now_s = ctx.clock.elapsed_s()
    work = _Rescue(stuck_since_s=now_s, look_at_s=now_s)
    async for _ in ctx.rounds(ctx.settings.drain_timeout_s):
        if await ctx.abort_requested():
            raise AbortedError("the task was asked to end while copies were leaving the node")
        shards = await ctx.engine.shards()
        alone, moving = _alone(shards, ctx.node.name, ctx.away), _moving(shards, ctx.node.name)
        if not alone and not moving:
            await ctx.count_recoveries()
            return _told(work.moved)
        begun = await _refill(ctx, work, alone - moving, moving)
        await ctx.pace(bool(moving or begun))
        await _report(ctx, work, alone, len(moving) + begun)
        if moving or begun:
            work.stuck_since_s = ctx.clock.elapsed_s()
            await ctx.engine.health(wait_settled=True, timeout_s=_LONG_POLL_S)
        elif ctx.clock.elapsed_s() - work.stuck_since_s >= ctx.settings.drain_stalled_s:
            _stalled(work, alone)
    raise StepFailedError(
        f"copies were still to leave the node after {ctx.settings.drain_timeout_s:.0f} s",
        remedy="see why shards move so slowly, raise SHARDLIFT_DRAIN_TIMEOUT_S, then retry",
    )


def _stalled(work: _Rescue, alone: frozenset[Group]) -> None:
    remedy = work.stuck[0].remedy if work.stuck else "see GET _cluster/allocation/explain for them, or add replicas"
    raise StepFailedError(
        f"{len(alone)} shard copies cannot leave the node and have no started copy elsewhere",
        evidence={"shards_left": _names(alone)},
        findings=work.stuck,
        remedy=f"{remedy}; then retry: the data stays where it is meanwhile",
    )


async def _refill(ctx: StepContext, work: _Rescue, waiting: frozenset[Group], moving: frozenset[Group]) -> int:
    """Begins as many moves as the window has room for. Returns how many the engine has begun."""
    work.planned = [(move, size) for move, size in work.planned if move.group in waiting]
    if waiting and not work.planned and not moving and ctx.clock.elapsed_s() >= work.look_at_s:
        await _plan(ctx, work, waiting)
    begun = await begin_moves(ctx, work.planned, work.sizes_bytes, moving)
    work.moved |= {one.move.group for one in begun if one.allowed}
    return sum(one.allowed for one in begun)


async def _plan(ctx: StepContext, work: _Rescue, waiting: frozenset[Group]) -> None:
    begun_s = ctx.clock.elapsed_s()
    seen = await ctx.engine.observe()
    subject = Subject(seen=seen, cluster=ctx.cluster, image=ctx.image, strategy=ctx.strategy, node=ctx.node)
    target = ctx.image.engine, ctx.image.version
    taken = [one.name for one in seen.nodes if (one.engine, one.version) == target and one.name not in ctx.away]
    found = departures(subject, ctx.node.name, waiting, preferred=taken, closed=ctx.mates)
    work.planned = list(zip(found.moves, found.sizes_bytes, strict=True))
    work.sizes_bytes = {move.group: size for move, size in work.planned}
    work.stuck = found.stuck
    now_s = ctx.clock.elapsed_s()
    work.look_at_s = now_s + READING_REST * (now_s - begun_s)


async def find_member(ctx: StepContext) -> NodeSeen:
    """The node as a member of the cluster. Raises StepFailedError when it is none."""
    for member in await ctx.engine.nodes():
        if member.name == ctx.node.name:
            return member
    raise StepFailedError(
        "the node is not a member of the cluster",
        evidence={"process": str(await ctx.driver.process(ctx.node)), "log": list(await ctx.driver.log_tail(ctx.node))},
        remedy=f"bring it back (it should answer at {ctx.node.url}), then retry",
    )


def _alone(shards: tuple[ShardCopy, ...], node: str, away: frozenset[str]) -> frozenset[Group]:
    """Shards of which the node has a started copy, and no node has that stays."""
    mine = {copy.group for copy in shards if copy.serving and copy.node == node}
    others = {copy.group for copy in shards if copy.serving and copy.node is not None and copy.node not in away}
    return frozenset(mine - others)


def _moving(shards: tuple[ShardCopy, ...], node: str) -> frozenset[Group]:
    return frozenset(copy.group for copy in shards if copy.node == node and copy.state is CopyState.RELOCATING)


async def _report(ctx: StepContext, work: _Rescue, alone: frozenset[Group], moving: int) -> None:
    why = f"; {work.stuck[0].reason} ({work.stuck[0].evidence})" if work.stuck else ""
    await ctx.report(
        {
            "shards_left": len(alone),
            "waiting_for": f"{len(alone)} shard copies that are started nowhere else to leave the node, {moving} of "
            f"them on their way{why}",
        }
    )


def _told(moved: set[Group]) -> Outcome:
    if not moved:
        return Outcome("Not needed: the node keeps its data path, and every shard has a started copy on another node.")
    return Outcome(
        f"{len(moved)} shard copies that were started nowhere else left the node; the others stay with their disk.",
        {"copies_moved": len(moved)},
    )


def _names(groups: Iterable[Group]) -> list[str]:
    return [f"{index}[{shard}]" for index, shard in sorted(groups)][:_NAMED_MAX]
