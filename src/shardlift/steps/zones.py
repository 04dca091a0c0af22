"""Awareness of zones while nodes change zones: forced zones are shortened before the first node goes, and what is to be
there in the end is set after the last."""

from __future__ import annotations

from shardlift.checks import items, not_apart
from shardlift.engine.protocol import Engine
from shardlift.errors import EngineError
from shardlift.model import AWARE_OF, FORCED_ZONES, ForcedZones, Plan
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


async def end_zones(ledger: Ledger, engine: Engine, plan: Plan) -> tuple[str, ...]:
    """Once all nodes are done, and before settings are put back: what is to be there from now on. A line for each."""
    return *await _keep_forced(ledger, engine, plan.forced), *await _turn_aware(ledger, engine, aware=plan.aware)


async def _turn_aware(ledger: Ledger, engine: Engine, *, aware: bool) -> tuple[str, ...]:
    """Copies are kept apart by zone from now on. Where shards are waited for until they rest, these are, too."""
    if not aware:
        return ()
    seen = await engine.observe()
    held = await ledger.kept_from(AWARE_OF)
    if items(seen.settings.effective(AWARE_OF)) and held is None:
        return ()  # somebody has set it meanwhile, to whatever
    problem = not_apart(seen.nodes, seen.indices)
    if problem and held is None:
        return (f"copies are not kept apart by zone: {problem}",)
    told = await _keep(ledger, AWARE_OF, "zone")
    return told or (f"copies are kept apart by zone from now on ({AWARE_OF} is zone), and moved for it by the engine",)


async def _keep(ledger: Ledger, key: str, value: str) -> tuple[str, ...]:
    """A line when the engine refuses it, which is no reason for a task not to end that has moved all nodes."""
    try:
        await ledger.keep_value(key, value)
    except EngineError as error:
        if error.status != _BAD_REQUEST:
            raise
        return (f"{key} could not be set to {value}: {error.message}",)
    return ()


async def _keep_forced(ledger: Ledger, engine: Engine, forced: ForcedZones | None) -> tuple[str, ...]:
    """The list of forced zones that is to be there from now on.

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
    told = await _keep(ledger, FORCED_ZONES, ",".join(after))
    return told or (f"{FORCED_ZONES} names {','.join(after)} from now on",)
