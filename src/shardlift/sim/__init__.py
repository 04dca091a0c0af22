"""A simulated world behind the same two protocols as the real one: clusters that need no engine and no host."""

from shardlift.sim.backend import SimBackend
from shardlift.sim.clock import FastClock
from shardlift.sim.world import Copy, SimNode, World, build_world

__all__ = ["Copy", "FastClock", "SimBackend", "SimNode", "World", "build_world"]
