"""The 13 sub-steps in order, and what frames them for a whole task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shardlift.clock import Clock
from shardlift.engine.protocol import Engine
from shardlift.model import REBALANCE, Plan
from shardlift.steps.before import allocation_hold, master_handover, safety_check
from shardlift.steps.context import Outcome, StepContext
from shardlift.steps.host import (
    configuration_backup,
    configuration_restoration,
    node_replacement,
    node_shutdown,
    node_start,
    plugin_installation,
)
from shardlift.steps.ledger import Ledger
from shardlift.steps.rejoin import cluster_rejoin, task_status_update
from shardlift.steps.spare import surge_migration
from shardlift.steps.traffic import traffic_removal
from shardlift.steps.zones import hold_zones

Step = Callable[[StepContext], Awaitable[Outcome]]

STEPS: tuple[Step, ...] = (
    surge_migration,
    safety_check,
    master_handover,
    traffic_removal,
    allocation_hold,
    configuration_backup,
    node_shutdown,
    node_replacement,
    configuration_restoration,
    plugin_installation,
    node_start,
    cluster_rejoin,
    task_status_update,
)

_RECOVERIES = "cluster.routing.allocation.node_concurrent_recoveries"
_RETURNING, _REBUILT = 64, 8
_LONG_POLL_S = 10.0
_SETTLED_TIMES = 2


async def hold_cluster(ledger: Ledger, engine: Engine, plan: Plan) -> None:
    """For the length of a task: shards move only because a node needs it.

    Rebalancing in between would fill the first upgraded node with primaries, whose replicas then can go nowhere, and
    would move bytes that the next drain moves again. Draining itself does not heed this setting (LocalShardsBalancer).
    """
    await ledger.set_value(REBALANCE, "none")
    await hold_zones(ledger, engine, plan.forced)
    at_once = _recoveries_at_once(plan)
    if at_once is not None:
        await ledger.set_if_unset(_RECOVERIES, str(at_once))


def _recoveries_at_once(plan: Plan) -> int | None:
    """For a node, None for as many as the engines let: two. Whoever has chosen a number keeps it.

    A copy that comes back with its node replays a few operations and copies next to nothing, so that of a few at a time
    each round waits for the state of the cluster to be told twice, and the next node for all rounds. A node that was
    away when the plan was made may have lost its disk: then whole copies share the network, the largest with the rest.
    """
    if not plan.strategy.keeps_data and not any(node.takes_over for node in plan.nodes):
        return None
    return _REBUILT if any(node.repair for node in plan.nodes) else _RETURNING


async def settle_cluster(ledger: Ledger, engine: Engine, clock: Clock, *, timeout_s: float) -> tuple[str, ...]:
    """Puts every setting back and waits, up to `timeout_s`, until the shards have come to rest.

    Returns notes about settings that others had changed. Not having come to rest in time is no failure: the cluster
    is whole, and the engine goes on balancing by itself.
    """
    notes = await ledger.restore()
    end_s = clock.elapsed_s() + timeout_s
    # Between two rounds of balancing nothing moves for a moment, and a wait ends there. Asked anew, the engine first
    # does what it has still to do, which is to begin the next round.
    times = 0
    while times < _SETTLED_TIMES and (left_s := end_s - clock.elapsed_s()) > 0:
        health = await engine.health(wait_settled=True, timeout_s=min(left_s, _LONG_POLL_S))
        times = times + 1 if health.settled and not health.timed_out else 0
    return notes
