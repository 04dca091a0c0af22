"""From what was observed and asked to a plan and its dry run, or to a refusal. Pure."""

from shardlift.planner.batches import make_batches, order_nodes
from shardlift.planner.dryrun import forecast, plan_and_forecast
from shardlift.planner.foreseen import foreseen
from shardlift.planner.moving import Departures, departures
from shardlift.planner.obstacles import not_asked_finding, refused_findings, stalled_findings
from shardlift.planner.planner import draft_plan, plan_upgrade
from shardlift.planner.speed import (
    RECOVERY_LIMIT,
    Load,
    LoadSeen,
    base_limit_bytes,
    judge_load,
    limit_bytes,
    limit_text,
    next_limit_bytes,
)
from shardlift.planner.standin import stand_in_roles, with_stand_in
from shardlift.planner.surge import needs_master, spare_roles, with_spares
from shardlift.planner.zones import spread

__all__ = [
    "RECOVERY_LIMIT",
    "Departures",
    "Load",
    "LoadSeen",
    "base_limit_bytes",
    "departures",
    "draft_plan",
    "forecast",
    "foreseen",
    "judge_load",
    "limit_bytes",
    "limit_text",
    "make_batches",
    "needs_master",
    "next_limit_bytes",
    "not_asked_finding",
    "order_nodes",
    "plan_and_forecast",
    "plan_upgrade",
    "refused_findings",
    "spare_roles",
    "spread",
    "stalled_findings",
    "stand_in_roles",
    "with_spares",
    "with_stand_in",
]
