"""A cluster's REST API: `Engine` is what Shardlift asks of it, `RestEngine` the real one."""

from shardlift.engine.protocol import Engine
from shardlift.engine.rest import RestEngine, open_engine

__all__ = ["Engine", "RestEngine", "open_engine"]
