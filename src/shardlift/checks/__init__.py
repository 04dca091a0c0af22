"""Named rules: pure functions from what was observed to findings. No I/O."""

from shardlift.checks.explain import unexplained_unassigned
from shardlift.checks.rules import NODE_RULES, PLAN_RULES, check_node, check_plan
from shardlift.checks.subject import Subject
from shardlift.checks.versions import hop_allowed, oldest_index

__all__ = [
    "NODE_RULES",
    "PLAN_RULES",
    "Subject",
    "check_node",
    "check_plan",
    "hop_allowed",
    "oldest_index",
    "unexplained_unassigned",
]
