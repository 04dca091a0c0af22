"""Forced zones while nodes change zones: shortened before the first node goes, as they are to be after the last."""

from __future__ import annotations

from shardlift.checks import items
from shardlift.engine.protocol import Engine
from shardlift.errors import EngineError
from shardlift.model import FORCED_ZONES, ForcedZones
from shardlift.steps.ledger import Ledger

_BAD_REQUEST = 400


async def hold_zones(ledger: Ledger, engine: Engine, forced: ForcedZones | None) -> None:
    """Before any node is taken: the list without the zones that are being emptied. A failure puts the whole one back.

    Asked of a list that is shortened already it changes nothing, so a retry or a resume may do it again.
    """
    if forced is None:
        return
    now = tuple(items((await engine.settings()).effective(FORCED_ZONES))) or forced.configured
    during = forced.during(now)
    if during != now:
        await ledger.set_value(FORCED_ZONES, ",".join(during))


async def keep_zones(ledger: Ledger, engine: Engine, forced: ForcedZones | None) -> tuple[str, ...]:
    """Once all nodes have moved, and before settings are put back: the list that is to be there from now on.

    Returns a line about it. Everything is computed from the row in the ledger and the nodes that are there, so it may
    be done again after a crash anywhere in between.
    """
    if forced is None:
        return ()
    held = await ledger.kept_from(FORCED_ZONES)
    settings = await engine.settings()
    now = settings.effective(FORCED_ZONES) if held is None else settings.layer(held.layer).get(FORCED_ZONES)
    if await ledger.value_disputed(FORCED_ZONES):
        return (f"{FORCED_ZONES} was changed by somebody else meanwhile and stays theirs: see that it is right now",)
    was = tuple(items(now if held is None else held.before)) or forced.configured
    here = {node.zone for node in await engine.nodes() if node.holds_data and node.zone is not None}
    after = forced.after(was, here)
    # Somebody has taken the list away, or has set it since the last safety check: it is left, and told of where
    # settings are put back.
    theirs = not was or (held is not None and now not in (held.ours, held.before, ",".join(after)))
    if theirs or (held is None and after == was):
        return ()
    try:
        await ledger.keep_value(FORCED_ZONES, ",".join(after))
    except EngineError as error:
        if error.status != _BAD_REQUEST:
            raise
        return (f"{FORCED_ZONES} could not be set to {','.join(after)}: {error.message}",)
    return (f"{FORCED_ZONES} names {','.join(after)} from now on",)
