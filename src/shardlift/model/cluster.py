"""Clusters and nodes as Shardlift keeps them: what should be, as opposed to `observation`, what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shardlift.model.image import EngineKind, Version


class Strategy(StrEnum):
    """How a node is emptied and refilled; see the table in docs/strategies.md."""

    DRAIN = "drain"
    IN_PLACE = "in_place"
    AUTO = "auto"
    SURGE = "surge"

    @property
    def empties(self) -> bool:
        """Whether everything leaves a node before it stops."""
        return self in {Strategy.DRAIN, Strategy.SURGE}

    @property
    def keeps_data(self) -> bool:
        """Whether a node comes back with the data path that it had."""
        return not self.empties


class InstanceType(StrEnum):
    """CSS words for what a node is for."""

    ESS = "ess"
    COLD = "ess-cold"
    CLIENT = "ess-client"
    MASTER = "ess-master"


class ClusterStatus(StrEnum):
    """CSS status words: 100 being created, 200 available, 303 unavailable."""

    CREATING = "100"
    AVAILABLE = "200"
    UNAVAILABLE = "303"


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its identity, which never changes, and the image it is meant to run.

    `address`, `http_port` and `transport_port` stay through an upgrade. `roles` are the engine's own role words, empty
    for the engine's default (data, ingest, master-eligible).
    """

    id: str
    cluster_id: str
    name: str
    instance_type: InstanceType
    roles: tuple[str, ...]
    zone: str
    address: str
    http_port: int
    transport_port: int
    image_id: str

    @property
    def url(self) -> str:
        """Base URL of the node's REST API."""
        return f"http://{self.address}:{self.http_port}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster with its nodes, in node order. `busy_with` is the kind of its unfinished task, None when idle.

    `traffic_hook`: what may be shown of it (`TrafficHook.document`), None when it has none.
    """

    id: str
    project_id: str
    name: str
    engine: EngineKind
    version: Version
    image_id: str
    driver: str
    strategy: Strategy
    status: ClusterStatus
    created_at: datetime
    updated_at: datetime
    heap_mib: int
    nodes: tuple[Node, ...]
    failed_reason: str | None = None
    traffic_hook: Mapping[str, object] | None = None
    busy_with: str | None = None

    def node(self, name: str) -> Node:
        """The node of that name. Raises KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
