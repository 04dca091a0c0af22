"""A model of where the engines allow shard copies to be, and of what happens to them when nodes go. No I/O."""

from shardlift.allocation.chooser import Chooser
from shardlift.allocation.deciders import awareness, objections
from shardlift.allocation.draining import Drained, bring_back, drain, take_down, wipe
from shardlift.allocation.state import Copy, Group, Index, Place, State, build_state

__all__ = [
    "Chooser",
    "Copy",
    "Drained",
    "Group",
    "Index",
    "Place",
    "State",
    "awareness",
    "bring_back",
    "build_state",
    "drain",
    "objections",
    "take_down",
    "wipe",
]
