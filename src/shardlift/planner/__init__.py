"""From what was observed and asked to a plan, or to a refusal. Pure."""

from shardlift.planner.planner import order_nodes, plan_upgrade

__all__ = ["order_nodes", "plan_upgrade"]
