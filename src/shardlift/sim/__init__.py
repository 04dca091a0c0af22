"""A simulated world behind the same two protocols as the real one: clusters that need no engine and no host."""

from shardlift.sim.backend import SimBackend
from shardlift.sim.build import build_world, sim_image
from shardlift.sim.clock import FastClock
from shardlift.sim.doors import Door, OpenDoor
from shardlift.sim.parts import MIB, Copy, IndexSpec, SimIndex, SimNode
from shardlift.sim.world import World

__all__ = [
    "MIB",
    "Copy",
    "Door",
    "FastClock",
    "IndexSpec",
    "OpenDoor",
    "SimBackend",
    "SimIndex",
    "SimNode",
    "World",
    "build_world",
    "sim_image",
]
