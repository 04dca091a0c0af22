"""A simulated world behind the same two protocols as the real one: clusters that need no engine and no host."""

from shardlift.sim import faults
from shardlift.sim.backend import SimBackend
from shardlift.sim.build import build_world, sim_image
from shardlift.sim.clock import ClusterClock, FastClock
from shardlift.sim.doors import Door, OpenDoor
from shardlift.sim.fleet import Fleet, Site
from shardlift.sim.hosts import FleetBackend, FleetDriver
from shardlift.sim.parts import MIB, Copy, IndexSpec, SimIndex, SimNode
from shardlift.sim.world import World

__all__ = [
    "MIB",
    "ClusterClock",
    "Copy",
    "Door",
    "FastClock",
    "Fleet",
    "FleetBackend",
    "FleetDriver",
    "IndexSpec",
    "OpenDoor",
    "SimBackend",
    "SimIndex",
    "SimNode",
    "Site",
    "World",
    "build_world",
    "faults",
    "sim_image",
]
