"""Named rules: pure functions from what was observed to findings. No I/O."""

from shardlift.checks.availability import only_copies
from shardlift.checks.explain import unexplained_unassigned
from shardlift.checks.leftovers import archived_removal
from shardlift.checks.placement import items
from shardlift.checks.routes import find_route, legs_of
from shardlift.checks.rules import (
    BATCH_RULES,
    NODE_RULES,
    PLAN_RULES,
    Rule,
    check_batch,
    check_batches,
    check_node,
    check_plan,
)
from shardlift.checks.subject import Subject
from shardlift.checks.versions import hop_allowed, oldest_index
from shardlift.checks.zones import forced_zones, held_settings, not_apart, turns_aware

__all__ = [
    "BATCH_RULES",
    "NODE_RULES",
    "PLAN_RULES",
    "Rule",
    "Subject",
    "archived_removal",
    "check_batch",
    "check_batches",
    "check_node",
    "check_plan",
    "find_route",
    "forced_zones",
    "held_settings",
    "hop_allowed",
    "items",
    "legs_of",
    "not_apart",
    "oldest_index",
    "only_copies",
    "turns_aware",
    "unexplained_unassigned",
]
