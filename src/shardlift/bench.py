"""What the walk through a plan works with."""

from __future__ import annotations

from dataclasses import dataclass

from shardlift.clock import Clock
from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.model import Cluster, Image
from shardlift.settings import Settings
from shardlift.steps import Traffic
from shardlift.store import Journal


@dataclass(frozen=True, slots=True)
class Bench:
    """What an executor works with: one cluster's doors, and where to go with them."""

    journal: Journal
    cluster: Cluster
    image: Image
    engine: Engine
    driver: Driver
    traffic: Traffic
    settings: Settings
    clock: Clock
