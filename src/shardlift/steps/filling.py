"""A node is emptied by explicit moves, which fill the node that was taken last, and is empty.

Left to itself the engine sends copies to whichever node has a free slot, and most of them move again when their new
node has its turn. Moved this way each copy moves once, and those of the first node twice: D(1 + 1/N) bytes in all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from shardlift.checks import Subject
from shardlift.model import CopyState, Move, Observation, ShardCopy
from shardlift.planner import departures
from shardlift.steps.context import READING_REST, AbortedError, StepContext
from shardlift.steps.window import Group, begin_moves

_SLOT_POLL_S = 1.0
_SLOT_POLL_LAST_S = 5.0
_POLL_MAX_S = 30.0
_PAUSE_S = 0.1
# A copy that has come back so often, or was refused, is left to the engine, which explains itself.
_TRIES_MAX = 3


@dataclass(slots=True)
class _Fill:
    """What is remembered from round to round. Lost in a crash, which only makes the plan be made anew."""

    planned: list[tuple[Move, int]] = field(default_factory=list)
    sizes_bytes: dict[Group, int] = field(default_factory=dict)
    begun: dict[Group, int] = field(default_factory=dict)
    tries: Counter[Group] = field(default_factory=Counter)
    look_at_s: float = 0.0
    poll_s: float = _SLOT_POLL_S
    moving: frozenset[Group] = frozenset()
    snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Filled:
    """`groups`: shards of which a copy was moved off the node; `size_bytes`: what these copies had."""

    groups: frozenset[Group]
    size_bytes: int


async def fill(ctx: StepContext, timeout_s: float) -> Filled:
    """Moves all started copies off the node that may go somewhere. Returns when none of that is left to do.

    What it leaves behind (closed indices on old engines, copies that no decider lets go, indices made meanwhile) is for
    the exclusion that follows.
    """
    work = _Fill()
    async for _ in ctx.rounds(timeout_s, pause_last_s=_PAUSE_S):
        if await ctx.abort_requested():
            raise AbortedError("the task was asked to end while the node was being drained")
        begun_s = ctx.clock.elapsed_s()
        shards = await ctx.engine.shards()
        took_s = ctx.clock.elapsed_s() - begun_s
        waiting, moving = _waiting(shards, ctx.node.name), _moving(shards, ctx.node.name)
        if not waiting and not moving:
            break
        begun = await _refill(ctx, work, waiting, moving)
        await ctx.pace(bool(moving or begun))
        await _report(ctx, work, waiting | moving, len(moving) + begun)
        if not moving and not begun and not work.snapshot and not work.planned:
            break
        # Until a place in the window is free. Where reading the shards is dear, the next look is later.
        work.poll_s = _SLOT_POLL_S if begun or moving != work.moving else min(1.5 * work.poll_s, _SLOT_POLL_LAST_S)
        work.moving = moving
        wait_s = min(max(work.poll_s, READING_REST * took_s), _POLL_MAX_S)
        if moving or begun:
            await ctx.engine.health(wait_settled=True, timeout_s=wait_s)
        else:
            await ctx.clock.sleep(wait_s)
    return Filled(frozenset(work.begun), sum(work.begun.values()))


async def _refill(ctx: StepContext, work: _Fill, waiting: frozenset[Group], moving: frozenset[Group]) -> int:
    """Begins as many moves as the window has room for. Returns how many the engine has begun."""
    work.planned = [(move, size) for move, size in work.planned if move.group in waiting]
    if waiting and not work.planned and not moving and ctx.clock.elapsed_s() >= work.look_at_s:
        await _plan(ctx, work, frozenset(group for group in waiting if work.tries[group] < _TRIES_MAX))
    said = await begin_moves(ctx, work.planned, work.sizes_bytes, moving)
    for one in said:
        group = one.move.group
        work.tries[group] += 1 if one.allowed else _TRIES_MAX
        if one.allowed:
            work.begun[group] = work.sizes_bytes.get(group, 0)
    return sum(one.allowed for one in said)


async def _plan(ctx: StepContext, work: _Fill, groups: frozenset[Group]) -> None:
    begun_s = ctx.clock.elapsed_s()
    seen = await ctx.engine.observe()
    # A move that is asked for does not wait for a snapshot of its primary, and would make that fail. Where nobody knows
    # of snapshots, primaries are left to the engine, which does.
    primaries = _primaries(seen, ctx.node.name) if seen.running_snapshots != 0 else frozenset()
    work.snapshot = seen.running_snapshots is not None and bool(groups & primaries)
    groups -= primaries
    subject = Subject(seen=seen, cluster=ctx.cluster, image=ctx.image, strategy=ctx.strategy, node=ctx.node)
    freshest = ctx.taken[-1] if ctx.taken else frozenset()
    found = departures(
        subject, ctx.node.name, groups, first=freshest - ctx.away, preferred=_taken(ctx, seen), closed=ctx.mates
    )
    work.planned = list(zip(found.moves, found.sizes_bytes, strict=True))
    work.sizes_bytes |= {move.group: size for move, size in work.planned}
    now_s = ctx.clock.elapsed_s()
    work.look_at_s = now_s + max(READING_REST * (now_s - begun_s), _SLOT_POLL_S)


def _taken(ctx: StepContext, seen: Observation) -> frozenset[str]:
    """Nodes from which nothing has to move again: those of this task, and in an upgrade those of one before it."""
    before = frozenset(name for batch in ctx.taken for name in batch)
    target = ctx.image.engine, ctx.image.version
    same = frozenset(one.name for one in seen.nodes if (one.engine, one.version) == target)
    upgraded = same if len(same) < len(seen.nodes) else frozenset()
    return (before | upgraded) - ctx.away


def _primaries(seen: Observation, node: str) -> frozenset[Group]:
    return frozenset(copy.group for copy in seen.shards if copy.primary and copy.node == node)


def _waiting(shards: tuple[ShardCopy, ...], node: str) -> frozenset[Group]:
    """Shards whose copy on the node stands still, as do all others of the shard: a primary that has moved makes
    recoveries of its replicas begin again."""
    busy = {copy.group for copy in shards if copy.state in (CopyState.RELOCATING, CopyState.INITIALIZING)}
    return frozenset(copy.group for copy in shards if copy.node == node and copy.state is CopyState.STARTED) - busy


def _moving(shards: tuple[ShardCopy, ...], node: str) -> frozenset[Group]:
    return frozenset(copy.group for copy in shards if copy.node == node and copy.state is CopyState.RELOCATING)


async def _report(ctx: StepContext, work: _Fill, groups: frozenset[Group], moving: int) -> None:
    left = len(groups)
    why = "; the others wait for a snapshot to end" if work.snapshot and not work.planned else ""
    await ctx.report(
        {
            "shards_left": left,
            "bytes_left": sum(work.sizes_bytes.get(group, 0) for group in groups),
            "waiting_for": f"{left} shard copies to leave the node, {moving} of them on their way{why}",
        }
    )
