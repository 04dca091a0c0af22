"""From what was observed and asked to a plan, or to a refusal. Pure."""

from shardlift.planner.planner import draft_plan, order_nodes, plan_upgrade

__all__ = ["draft_plan", "order_nodes", "plan_upgrade"]
