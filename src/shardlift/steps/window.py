"""Explicit moves, a few at a time: as many as a window of moves and bytes has room for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shardlift.model import Move, MoveVerdict
from shardlift.steps.context import StepContext

Group = tuple[str, int]


async def begin_moves(
    ctx: StepContext, planned: list[tuple[Move, int]], sizes_bytes: Mapping[Group, int], moving: Collection[Group]
) -> tuple[MoveVerdict, ...]:
    """Takes moves off the front of `planned` while there is room beside those of `moving`, and begins them.

    The window is `moves_max` and `moves_max_bytes` of the settings: a move that is asked for begins whatever the
    engine's own limits are. A copy larger than that moves alone. Returns what the engine said to each, refusals too.
    """
    room = ctx.settings.moves_max - len(moving)
    left_bytes = ctx.settings.moves_max_bytes - sum(sizes_bytes.get(group, 0) for group in moving)
    chosen: list[Move] = []
    while planned and len(chosen) < room and (left_bytes > 0 or not (moving or chosen)):
        move, size_bytes = planned.pop(0)
        left_bytes -= size_bytes
        chosen.append(move)
    if not chosen:
        return ()
    ctx.check_lease()
    return await ctx.engine.move(tuple(chosen))
