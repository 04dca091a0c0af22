"""Explicit moves, a few at a time: as many as a window of moves and bytes has room for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shardlift.model import Move, MoveVerdict
from shardlift.steps.context import StepContext

Group = tuple[str, int]
# What is on its way at once: a move that is asked for begins whatever the engine's own limits are.
_MOVES_MAX = 8
_WINDOW_BYTES = 8 << 30


async def begin_moves(
    ctx: StepContext, planned: list[tuple[Move, int]], sizes_bytes: Mapping[Group, int], moving: Collection[Group]
) -> tuple[MoveVerdict, ...]:
    """Takes moves off the front of `planned` while there is room beside those of `moving`, and begins them.

    A copy larger than the window moves alone. Returns what the engine said to each, refusals too.
    """
    room = _MOVES_MAX - len(moving)
    left_bytes = _WINDOW_BYTES - sum(sizes_bytes.get(group, 0) for group in moving)
    chosen: list[Move] = []
    while planned and len(chosen) < room and (left_bytes > 0 or not (moving or chosen)):
        move, size_bytes = planned.pop(0)
        left_bytes -= size_bytes
        chosen.append(move)
    if not chosen:
        return ()
    ctx.check_lease()
    return await ctx.engine.move(tuple(chosen))
