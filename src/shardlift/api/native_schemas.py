"""Bodies of the native API, as the documentation page shows them and as requests are checked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shardlift.api.schemas import IMAGE_REF, Truth
from shardlift.model import Strategy


class GatesBody(BaseModel):
    """Limits that every node has to keep before the next one is taken. Those that are not given do not limit."""

    model_config = ConfigDict(extra="forbid")

    search_latency_ms: float | None = Field(default=None, ge=0, description="Mean time of a query of one shard")
    write_latency_ms: float | None = Field(default=None, ge=0, description="Mean time of an indexing operation")
    rejections: int | None = Field(default=None, ge=0, description="Requests refused by a node between two readings")
    heap_percent: float | None = Field(default=None, ge=0, le=100, description="Heap used")
    disk_percent: float | None = Field(default=None, ge=0, le=100, description="Disk used")
    on_breach: Literal["wait", "pause", "fail"] = Field(
        default="wait", description="What a closed gate does: wait (and pause after `wait_timeout_s`), pause, or fail"
    )
    wait_timeout_s: float = Field(default=600, ge=0, description="How long `wait` waits before it pauses the task")


class PolicyBody(BaseModel):
    """How a task goes from node to node."""

    model_config = ConfigDict(extra="forbid")

    canary: Truth = Field(default=False, description="The first node comes back without shards and waits for approval")
    gates: GatesBody | None = Field(default=None, description="What must hold before each node; null for nothing")
    windows: list[str] = Field(
        default=[],
        max_length=50,
        description="Times at which nodes may be begun, such as `mon-fri 01:00-05:00 Europe/Berlin`; none for always",
    )


class PolicyChangeBody(BaseModel):
    """What is to change in a task's policy. What is left out, or null, stays as it is."""

    model_config = ConfigDict(extra="forbid")

    canary: Truth | None = Field(
        default=None, description="false: approves the canary in advance. A canary can not be asked for later"
    )
    gates: GatesBody | None = Field(
        default=None, description="In place of all gates that there are; `{}` takes them away"
    )
    windows: list[str] | None = Field(
        default=None, max_length=50, description="In place of all windows that there are; `[]` takes them away"
    )


class UpgradeBody(BaseModel):
    """What an upgrade, or its dry run, is asked for with. Unknown keys are ignored."""

    image: str = Field(pattern=IMAGE_REF, description="Image to go to: `opensearch:3.4.0` or an image id")
    strategy: Strategy | None = Field(default=None, description="How nodes are emptied; the cluster's own by default")
    upgrade_type: Literal["same", "cross", "cross-engine", "crossEngine"] | None = Field(
        default=None, description="Refuse an image that is another kind of hop"
    )
    backup_check: Truth = Field(default=False, description="Refuse unless every index is in a successful snapshot")
    load_check: Truth = Field(default=False, description="Refuse while the nodes are under load")
    batch_size: int = Field(default=1, ge=1, le=1000, strict=True, description="Nodes taken at the same time")
    policy: PolicyBody = Field(default_factory=PolicyBody, description="Canary, gates and maintenance windows")


class ImageDocument(BaseModel):
    """An engine image."""

    image_id: str = Field(description="Its id")
    reference: str = Field(description="Its short name", examples=["opensearch:2.19.4"])
    name: str = Field(description="`{version}_{release}_{MMDD}`")
    description: str = Field(description="What it holds")
    engine: str = Field(description="elasticsearch or opensearch")
    version: str = Field(description="Engine version")
    java: str = Field(description="Java releases that it runs on", examples=["11-21"])
    size_bytes: int = Field(description="Size of the archive")
    priority: int = Field(description="The higher, the more recommended")


class ImagePage(BaseModel):
    total: int = Field(description="How many there are")
    images: list[ImageDocument] = Field(description="The images, by priority")


class NodeDocument(BaseModel):
    """A node, and how it is right now where that was asked for."""

    id: str = Field(description="Node id; stays through an upgrade")
    name: str = Field(description="Node name; stays through an upgrade")
    url: str = Field(description="Base URL of its REST API")
    zone: str = Field(description="Zone")
    roles: list[str] = Field(description="The engine's role words; empty for the engine's default")
    type: str = Field(description="ess, ess-cold, ess-client or ess-master")
    image_id: str = Field(description="Image that it is meant to run")
    version: str | None = Field(description="Version that the node itself reports; null when it does not answer")
    pid: int | None = Field(description="Its process; null when it does not run")
    answers: bool | None = Field(description="Whether its REST API answers; null when that was not asked for")


class TrafficHookDocument(BaseModel):
    """A traffic hook, as far as it may be shown."""

    kind: Literal["command", "http", "haproxy"] = Field(description="Who is told")
    command: list[str] | None = Field(default=None, description="Program and arguments, for command")
    url: str | None = Field(default=None, description="Method, scheme, host and port, for http")
    headers: list[str] | None = Field(default=None, description="Names of headers, for http")
    socket: str | None = Field(default=None, description="Runtime socket, for haproxy")
    backends: list[str] | None = Field(default=None, description="Backends, for haproxy")
    types: list[str] = Field(description="Types of nodes that clients are led to")
    timeout_s: float = Field(description="Bound of one call, seconds")
    in_flight_timeout_s: float = Field(description="Bound of the wait until nothing is in flight, seconds")
    leftovers: Literal["fail", "go-on"] = Field(description="What becomes of the task when that wait is in vain")


class ClusterDocument(BaseModel):
    """A cluster."""

    cluster_id: str = Field(description="Cluster id")
    project_id: str = Field(description="Project that it belongs to")
    name: str = Field(description="Cluster name")
    status: str = Field(description="200 available, 100 being created, 303 unavailable")
    engine: str = Field(description="elasticsearch or opensearch")
    version: str = Field(description="Engine version that the cluster is meant to run")
    image_id: str = Field(description="Image that it is meant to run")
    driver: str = Field(description="Where its nodes live")
    strategy: str = Field(description="How nodes are emptied when a request does not say")
    busy_with: str | None = Field(description="Kind of the running task; null when idle")
    failed_reason: str | None = Field(description="Why it is not available")
    traffic_hook: TrafficHookDocument | None = Field(description="How clients are led away; null when they are not")
    created_at: str = Field(description="ISO 8601, UTC")
    updated_at: str = Field(description="ISO 8601, UTC")
    nodes: list[NodeDocument] = Field(description="Its nodes")
    spares: list[NodeDocument] | None = Field(
        description="Spare nodes, of an upgrade by `surge` or a move of masters; null where they were not asked for"
    )


class ClusterPage(BaseModel):
    total: int = Field(description="How many there are in all")
    clusters: list[ClusterDocument] = Field(description="Those of this page")


class FindingDocument(BaseModel):
    """What a rule has to say."""

    rule: str = Field(description="Name of the rule, the same in logs, docs and overrides")
    severity: Literal["block", "warn"] = Field(description="block stops the operation, warn is told and passed")
    subject: str = Field(description="Node, index or cluster that it is about")
    reason: str = Field(description="What is wrong")
    evidence: str = Field(description="What was seen")
    remedy: str = Field(description="What to do about it")


class PlannedNode(BaseModel):
    name: str = Field(description="Node name")
    from_version: str = Field(description="Version before")
    fresh_data: bool = Field(description="Whether it starts on an empty data path")
    drained: bool = Field(description="Whether all shard copies leave it before it stops")
    rescued: bool = Field(description="Whether only copies that are started nowhere else leave it before it stops")
    repair: bool = Field(description="Whether it is out of the cluster, and is brought back")
    canary: bool = Field(description="Whether it waits for approval, without shards, before the others follow")
    to_zone: str | None = Field(description="Zone that it comes back in; null for the one it is in")
    spare: str | None = Field(description="Spare node that joins before anything leaves it; null where there is none")
    takes_over: bool = Field(description="Whether it comes back with the data folder of the spare, which goes")
    spare_zone: str | None = Field(
        description="Zone of the spare where that is an extra master, there while masters change zones; null elsewhere"
    )


class PlanDocument(BaseModel):
    """What would be done, in order. Nodes of one batch are taken together."""

    strategy: str = Field(description="How nodes are emptied")
    image_id: str = Field(description="Image to go to")
    batches: list[list[PlannedNode]] = Field(description="Batches in the order they are taken")


class InflowDocument(BaseModel):
    node: str = Field(description="Node name")
    copies: int = Field(description="Shard copies that it takes over")
    size_bytes: int = Field(description="Their size")


class NodeForecastDocument(BaseModel):
    """What happens to the shard copies on one node of the plan."""

    name: str = Field(description="Node name")
    batch: int = Field(description="Which batch it is in, from 1")
    drained: bool = Field(description="Whether its copies leave it before it stops")
    copies: int = Field(description="Copies that move away")
    size_bytes: int = Field(description="Their size")
    targets: list[InflowDocument] = Field(description="The nodes that take most of them, at most eight")
    other_targets: int = Field(description="How many more nodes take some")
    kept: int = Field(description="Copies that can go nowhere, but are started on another node too")
    held: int = Field(description="Copies that can go nowhere and are started nowhere else: the drain cannot end")
    dropped: int = Field(description="Copies that the engine gives up meanwhile (auto_expand_replicas)")
    rebuilt: int = Field(description="Copies made again once it is back")
    rebuilt_bytes: int = Field(description="Their size")
    waiting: int = Field(description="In place: copies that wait on its disk for its return")
    alone: int = Field(description="Those of them that are started nowhere else")


class DecisionDocument(BaseModel):
    decider: str = Field(description="The engine's word for what objects", examples=["filter"])
    verdict: str = Field(description="NO")
    explanation: str = Field(description="Its reason, and for how many nodes it holds")
    node: str | None = Field(description="One of them")


class StuckDocument(BaseModel):
    """Copies of one index on one node that can go nowhere."""

    index: str = Field(description="Index name")
    node: str = Field(description="Node name")
    decider: str = Field(description="What is mainly in the way")
    held: bool = Field(description="Whether they are started nowhere else")
    copies: int = Field(description="How many")
    shards: list[int] = Field(description="Numbers of the first of them")
    decisions: list[DecisionDocument] = Field(description="Each decider's objection")


class DiskPeakDocument(BaseModel):
    node: str = Field(description="Node name")
    used_bytes: int = Field(description="The most that its disk holds at any time of the plan")
    total_bytes: int | None = Field(description="Size of its disk; null when not known")


class ForecastDocument(BaseModel):
    """The dry run of the whole plan, node by node."""

    ends: bool = Field(description="Whether each drain can end")
    exhaustive: bool = Field(description="False when too many copies found no place to try every node for each")
    copies: int = Field(description="Copies that are moved or made again, in all")
    size_bytes: int = Field(description="What is copied between nodes, in all")
    waiting: int = Field(description="Copies without a node in the end")
    nodes: list[NodeForecastDocument] = Field(description="The nodes, in plan order")
    stuck: list[StuckDocument] = Field(description="Copies that can go nowhere, those that hold a drain up first")
    unlisted_held: int = Field(description="Copies not listed that can go nowhere and are started nowhere else")
    unlisted_kept: int = Field(description="Copies not listed that can go nowhere, but are started on another node too")
    peaks: list[DiskPeakDocument] = Field(description="Peak use of each node's disk")


class CheckAnswer(BaseModel):
    """What the checks found. Nothing was changed."""

    cluster_id: str = Field(description="Cluster id")
    image_id: str = Field(description="Image to go to")
    strategy: str = Field(description="How nodes would be emptied")
    ok: bool = Field(description="Whether nothing blocks")
    findings: list[FindingDocument] = Field(description="Objections, those that block and those that warn")
    plan: PlanDocument | None = Field(description="What would be done; null when something blocks")
    forecast: ForecastDocument | None = Field(
        description="The dry run of the plan, also when something blocks; null when there is nothing to do"
    )


class PolicyDocument(BaseModel):
    """How a task goes from node to node."""

    canary: bool = Field(description="Whether its first node waits for approval")
    gates: dict[str, float | str] | None = Field(
        description="Limits by name, `on_breach` and `wait_timeout_s`; null for none"
    )
    windows: list[str] = Field(description="Times at which nodes may be begun; none for always")


class StepDocument(BaseModel):
    """One sub-step of one node."""

    node: str = Field(description="Node name")
    order: int = Field(description="0 to 12")
    name: str = Field(description="Name of the sub-step")
    status: Literal["WAITING", "RUNNING", "SUCCESS", "FAILED"] = Field(description="State of the sub-step")
    begin: str | None = Field(description="ISO 8601, UTC; null before it begins")
    end: str | None = Field(description="ISO 8601, UTC; null before it ends")
    desc: str = Field(description="What it does, or did")
    attempts: int = Field(description="How often it was begun")
    evidence: dict[str, Any] = Field(description="What was seen: findings, the last lines of the engine's log")
    progress: dict[str, Any] = Field(
        description="While it runs: waiting_for, shards_left, bytes_left, recovery_limit_bytes_per_s, lease_wait_s"
    )
    revision: int = Field(description="Revision of its task at which it last changed")


class TaskDocument(BaseModel):
    """A task with the journal of all its nodes."""

    task_id: str = Field(description="Task id")
    cluster_id: str = Field(description="Cluster that it acts on")
    kind: str = Field(description="UPGRADING or AZ_MIGRATION")
    status: Literal["RUNNING", "SUCCESS", "FAILED", "PARTIAL_FAILED"] = Field(description="Task status")
    aborting: bool = Field(description="Whether its end has been asked for")
    image_id: str = Field(description="Image to go to")
    strategy: str = Field(description="How nodes are emptied")
    created_at: str = Field(description="ISO 8601, UTC")
    ended_at: str | None = Field(description="ISO 8601, UTC; null while it runs")
    execute_times: int = Field(description="1, and one more for each retry")
    revision: int = Field(description="Grows with each change; what `after_revision` takes")
    nodes_total: int = Field(description="How many nodes it takes")
    nodes_completed: int = Field(description="How many of them are done")
    current_nodes: list[str] = Field(description="Nodes being worked on, or where it failed")
    bytes_moved: int = Field(description="Shard data sent between nodes so far")
    eta_s: int | None = Field(description="Seconds of work left, from what this task has needed so far; null at first")
    eta_low_s: int | None = Field(description="Four times of five it takes at least so many, and")
    eta_high_s: int | None = Field(description="at most so many")
    blocked_by: str | None = Field(description="What it waits for and what to do about it; null when nothing")
    paused: bool = Field(description="Whether it is to stop before the next node")
    at_rest: bool = Field(description="Whether nothing is under way, and no node is half done")
    approved: bool = Field(description="Whether its canary may take shards")
    waiting_for: str | None = Field(description="What keeps it between two nodes, and what to do; null when nothing")
    hold_until: str | None = Field(description="ISO 8601, UTC; when its maintenance window opens, if it waits for that")
    queue_position: int | None = Field(description="Place among tasks that wait for their turn; null when it has it")
    policy: PolicyDocument = Field(description="Canary, gates and windows that it goes by")
    fail_message: str | None = Field(description="Why it failed")
    batches: list[list[str]] = Field(description="Names of the nodes, batch by batch, in plan order")
    steps: list[StepDocument] = Field(description="13 sub-steps of each node, in plan order")


class TaskNodeDocument(BaseModel):
    """One node of a task."""

    name: str = Field(description="Node name")
    batch: int = Field(description="Which batch it is in, from 1")
    status: Literal["WAITING", "RUNNING", "SUCCESS", "FAILED"] = Field(description="What its sub-steps add up to")
    begin: str | None = Field(description="ISO 8601, UTC; null before it begins")
    end: str | None = Field(description="ISO 8601, UTC; null before it is done")
    steps: list[StepDocument] = Field(description="Its 13 sub-steps")


class TaskNodePage(BaseModel):
    total: int = Field(description="How many there are in all")
    nodes: list[TaskNodeDocument] = Field(description="Those of this page, in plan order")


class TaskPage(BaseModel):
    total: int = Field(description="How many there are in all")
    tasks: list[TaskDocument] = Field(description="Those of this page, newest first")
