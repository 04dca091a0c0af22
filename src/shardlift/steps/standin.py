"""Who votes while masters without data change zones: looked at before each is stopped, and before the extra one goes.

The engines replace a voter that has left by a member that can vote and does not (`Reconfigurator`): three vote of three
masters and an extra one, whoever of them is away. So it is asked that enough of them stay, and that each voter of the
committed configuration is a member: then the one before it has been replaced, or is back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shardlift.errors import EngineError
from shardlift.model import NodeSeen
from shardlift.steps.context import StepContext, StepFailedError

_VOTE_S = 60.0
# One more of them may fail, and the others are a majority.
_VOTERS_MIN = 3
_REMEDY = (
    "GET _cluster/state?filter_path=metadata.cluster_coordination shows who votes; start those of them that are away, "
    "then retry"
)


async def votes_with(ctx: StepContext, extra: str) -> None:
    """Waits until the extra master is a member and three can vote without the node. Raises StepFailedError."""

    async def short() -> str:
        members = await ctx.engine.nodes()
        if not any(member.name == extra and member.master_eligible for member in members):
            return f"{extra} is no master-eligible member"
        return await _short(ctx, members, staying=_voters(members) - ctx.away)

    await _until_enough(ctx, short, f"the master of {ctx.node.name} may not be stopped")


async def votes_without(ctx: StepContext, extra: str) -> None:
    """Waits until three can vote without the extra master. Raises StepFailedError: it is needed."""

    async def short() -> str:
        members = await ctx.engine.nodes()
        return await _short(ctx, members, staying=_voters(members) - {extra})

    await _until_enough(ctx, short, f"the extra master {extra} may not go yet")


async def _short(ctx: StepContext, members: tuple[NodeSeen, ...], *, staying: frozenset[str]) -> str:
    """What is missing for three of these to vote whoever fails; empty when nothing is."""
    if len(staying) < _VOTERS_MIN:
        return f"{len(staying)} other master-eligible nodes are there, {_VOTERS_MIN} must be"
    dead = await _dead(ctx, members)
    return f"{dead} of those that are to vote are no members" if dead else ""


async def _dead(ctx: StepContext, members: tuple[NodeSeen, ...]) -> int:
    """How many of those in the committed voting configuration are no members."""
    voting = await ctx.engine.voting()
    if voting is None:
        return 0  # Elasticsearch 6 has none
    return len(voting.config_ids - {member.id for member in members})


async def _until_enough(ctx: StepContext, short: Callable[[], Awaitable[str]], what: str) -> None:
    why = ""
    async for _ in ctx.rounds(_VOTE_S):
        try:
            why = await short()
        except EngineError as error:
            why = error.message
        if not why:
            return
        await ctx.report({"waiting_for": f"votes: {why}"})
    raise StepFailedError(f"{what}: {why}", evidence={"votes": why}, remedy=_REMEDY)


def _voters(members: tuple[NodeSeen, ...]) -> frozenset[str]:
    return frozenset(member.name for member in members if member.master_eligible)
