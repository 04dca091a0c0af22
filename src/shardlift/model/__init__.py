"""Frozen data that flows through everything. Nothing here does I/O or knows a layer above."""

from shardlift.model.cluster import Cluster, ClusterStatus, InstanceType, Node, Strategy
from shardlift.model.finding import Finding, Severity
from shardlift.model.image import EngineKind, Image, Version
from shardlift.model.observation import (
    BackupSeen,
    ClusterSettings,
    CopyState,
    Decision,
    Explanation,
    Health,
    HealthSeen,
    IndexSeen,
    Move,
    MoveVerdict,
    NodeSeen,
    Observation,
    PluginSeen,
    Recovery,
    ShardCopy,
    VotingSeen,
)
from shardlift.model.plan import SUB_STEPS, NodePlan, Plan, SubStep
from shardlift.model.task import StepRow, StepStatus, Task, TaskKind, TaskStatus

__all__ = [
    "SUB_STEPS",
    "BackupSeen",
    "Cluster",
    "ClusterSettings",
    "ClusterStatus",
    "CopyState",
    "Decision",
    "EngineKind",
    "Explanation",
    "Finding",
    "Health",
    "HealthSeen",
    "Image",
    "IndexSeen",
    "InstanceType",
    "Move",
    "MoveVerdict",
    "Node",
    "NodePlan",
    "NodeSeen",
    "Observation",
    "Plan",
    "PluginSeen",
    "Recovery",
    "Severity",
    "ShardCopy",
    "StepRow",
    "StepStatus",
    "Strategy",
    "SubStep",
    "Task",
    "TaskKind",
    "TaskStatus",
    "Version",
    "VotingSeen",
]
