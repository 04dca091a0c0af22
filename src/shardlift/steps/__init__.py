"""The 13 sub-steps of one node: small, bounded in time, and safe to begin again after a crash at any point."""

from shardlift.steps.balancing import Traffic
from shardlift.steps.context import Outcome, StepContext, StepFailedError
from shardlift.steps.ledger import Ledger
from shardlift.steps.sequence import STEPS, hold_cluster, settle_cluster

__all__ = ["STEPS", "Ledger", "Outcome", "StepContext", "StepFailedError", "Traffic", "hold_cluster", "settle_cluster"]
