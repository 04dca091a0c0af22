"""The requests that Shardlift sends, each once and in full. `filter_path` keeps answers small on big clusters."""

from __future__ import annotations

from urllib.parse import quote

from shardlift.engine.transport import Call
from shardlift.model import Health, Move, ShardCopy

_VOTING_TIMEOUT = "4s"  # an election takes about one second
_FLUSH_PATIENCE_S = 120.0

_COPY = "routing_table.indices.*.shards.*."
_COPY_FIELDS = ("index", "shard", "primary", "state", "node", "relocating_node", "unassigned_info.reason")
_RECOVERY = "*.shards."
_RECOVERY_FIELDS = ("id", "type", "stage", "start_time_in_millis", "source.name", "target.name", "index.size")
_MEMBER_FIELDS = ("name", "ephemeral_id", "transport_address")
# Asked for its plugins a node lists its dozens of modules, too, each with a description.
_NODE_FIELDS = (
    "version",
    "roles",
    "attributes",
    "plugins.name",
    "plugins.version",
    "jvm.version",
    "jvm.start_time_in_millis",
)
_STATS_FIELDS = (
    "fs.total",
    "process.cpu.percent",
    "os.cpu.load_average",
    "jvm.mem.heap_used_percent",
    "thread_pool.search.queue",
    "thread_pool.search.rejected",
    "thread_pool.write.queue",
    "thread_pool.write.rejected",
    "indices.search.query_total",
    "indices.search.query_time_in_millis",
    "indices.indexing.index_total",
    "indices.indexing.index_time_in_millis",
)
# What a restart of a node would break half-way. Resize is shrink, split and clone; 6.8 calls its shrink so too.
_WORK = ("*reindex*", "*byquery*", "*forcemerge*", "*resize*", "*shrink*")


def _fields(prefix: str, names: tuple[str, ...]) -> str:
    return ",".join(prefix + name for name in names)


ROOT = Call("GET", "/")
ELECTED = Call("GET", "/_cluster/state/master_node,nodes", {"filter_path": "master_node,nodes.*.name"}, master=True)
MEMBERS = Call(
    "GET",
    "/_cluster/state/master_node,nodes",
    {"filter_path": "master_node,cluster_manager_node," + _fields("nodes.*.", _MEMBER_FIELDS)},
    master=True,
)
NODES = Call("GET", "/_nodes/jvm,plugins", {"filter_path": _fields("nodes.*.", _NODE_FIELDS), "timeout": "3s"})
VERSIONS = Call("GET", "/_nodes/_all/none", {"filter_path": "nodes.*.version", "timeout": "3s"})
OWN_VERSION = Call("GET", "/_nodes/_local/none", {"filter_path": "nodes.*.version"})
PROCESSORS = Call(
    "GET",
    "/_nodes/os",
    {"filter_path": "nodes.*.os.allocated_processors,nodes.*.os.available_processors", "timeout": "3s"},
)
STATS = Call(
    "GET",
    "/_nodes/stats/fs,process,os,jvm,thread_pool,indices/search,indexing",
    {"filter_path": _fields("nodes.*.", _STATS_FIELDS), "timeout": "3s"},
)
ROUTING = Call(
    "GET",
    "/_cluster/state/nodes,routing_table",
    {"filter_path": "nodes.*.name," + _fields(_COPY, _COPY_FIELDS)},
    master=True,
)
METADATA = Call(
    "GET",
    "/_cluster/state/metadata",
    {
        "flat_settings": "true",
        "filter_path": "metadata.cluster_coordination,metadata.node_shutdown,"
        "metadata.indices.*.state,metadata.indices.*.settings",
    },
    master=True,
)
VOTING = Call("GET", "/_cluster/state/metadata", {"filter_path": "metadata.cluster_coordination"}, master=True)
CLEAR_VOTING = Call("DELETE", "/_cluster/voting_config_exclusions", {"wait_for_removal": "false"})
SIZES = Call("GET", "/_cat/shards", {"format": "json", "bytes": "b", "h": "index,shard,prirep,id,store"})
SETTINGS = Call("GET", "/_cluster/settings", {"flat_settings": "true"}, master=True)
# With flat settings a key is one name, dots and all. A dot in a filter parts names: only a star matches those in keys.
ALL_SETTINGS = Call(
    "GET",
    "/_cluster/settings",
    {
        "flat_settings": "true",
        "include_defaults": "true",
        "filter_path": "persistent,transient,defaults.cluster*,defaults.indices*,defaults.discovery*",
    },
    master=True,
)
# Only what the nodes' configuration files say, without any default. With flat settings, see above.
CONFIGURED = Call(
    "GET",
    "/_nodes/settings",
    {"flat_settings": "true", "timeout": "3s", "filter_path": "nodes.*.name,nodes.*.settings.indices*"},
)
RUNNING_WORK = Call(
    "GET",
    "/_tasks",
    {
        "actions": ",".join(_WORK),
        "group_by": "none",
        "timeout": "3s",
        "filter_path": _fields("tasks.", ("node", "id", "action", "parent_task_id")) + ",node_failures.type",
    },
)
DANGLING = Call("GET", "/_dangling", {"filter_path": "dangling_indices.index_name,_nodes.failed"})
RUNNING_SNAPSHOTS = Call("GET", "/_snapshot/_status", {"filter_path": "snapshots.snapshot"}, master=True)
REPOSITORIES = Call("GET", "/_snapshot/_all", master=True)
_RETAINED = "nodes.*.indices.shards.*.*."
_RETAINED_FIELDS = ("docs.count", "store.size_in_bytes", "seq_no.global_checkpoint", "retention_leases.leases")
CLIENT_REQUESTS = Call("GET", "/_tasks", {"nodes": "_local", "actions": "indices:data/*", "group_by": "none"})


def heard_of(node: str) -> Call:
    """Asked of any node: it asks that one, and lists it only if it answers in time."""
    return Call("GET", f"/_nodes/{quote(node, safe='')}/none", {"filter_path": "nodes.*.version", "timeout": "2s"})


def retained(node: str) -> Call:
    return Call(
        "GET",
        f"/_nodes/{quote(node, safe='')}/stats/indices/docs,store",
        {"level": "shards", "filter_path": _fields(_RETAINED, _RETAINED_FIELDS)},
    )


def health(*, wait_settled: bool, wait_status: Health | None, timeout_s: float) -> Call:
    """A time-out of the wait is an answer: 408 in some versions, 200 in others, with `timed_out` in both."""
    params: dict[str, str] = {}
    if wait_settled:
        params |= {
            "wait_for_no_relocating_shards": "true",
            "wait_for_no_initializing_shards": "true",
            "wait_for_events": "languid",
        }
    if wait_status is not None:
        params["wait_for_status"] = str(wait_status)
    return Call("GET", "/_cluster/health", params, answers=frozenset({408}), wait_s=timeout_s, master=True)


def put_setting(layer: str, key: str, value: str | None) -> Call:
    return Call("PUT", "/_cluster/settings", body={layer: {key: value}}, master=True)


def exclude_from_voting(node: str, *, by_name: bool) -> Call:
    """The engine answers once the node is out of the configuration. 7.0 to 7.7 take the name in the path."""
    path = "/_cluster/voting_config_exclusions"
    if by_name:
        return Call("POST", path, {"node_names": node, "timeout": _VOTING_TIMEOUT})
    return Call("POST", f"{path}/{quote(node, safe='')}", {"timeout": _VOTING_TIMEOUT})


def explain(copy: ShardCopy, node: str | None) -> Call:
    """`node`: where the copy is, None for an unassigned one."""
    body: dict[str, object] = {"index": copy.index, "shard": copy.shard, "primary": copy.primary}
    if node is not None:
        body["current_node"] = node
    return Call("POST", "/_cluster/allocation/explain", body=body)


def flush(*, synced: bool) -> Call:
    """A synced flush answers 409 when some copy was being written to: that copy is merely not marked."""
    path = "/_flush/synced" if synced else "/_flush"
    return Call("POST", path, answers=frozenset({409}), patience_s=_FLUSH_PATIENCE_S)


def snapshots(repository: str) -> Call:
    """Names, states and indices, which a repository keeps in one place."""
    fields = _fields("snapshots.", ("snapshot", "state", "indices"))
    return Call("GET", f"{_repository(repository)}/_all", {"verbose": "false", "filter_path": fields}, master=True)


def snapshot_details(repository: str, names: tuple[str, ...]) -> Call:
    """What is kept with each snapshot on its own."""
    path = f"{_repository(repository)}/{','.join(quote(name, safe='') for name in names)}"
    fields = _fields("snapshots.", ("snapshot", "end_time_in_millis", "shards.failed"))
    return Call("GET", path, {"ignore_unavailable": "true", "filter_path": fields}, master=True)


def _repository(name: str) -> str:
    return f"/_snapshot/{quote(name, safe='')}"


def recoveries(*, hidden_and_closed: bool) -> Call:
    """All that the living copies went through. Without `hidden_and_closed` the engine leaves hidden indices out."""
    params = {"filter_path": _fields(_RECOVERY, _RECOVERY_FIELDS)}
    if hidden_and_closed:
        params["expand_wildcards"] = "all"
    return Call("GET", "/_recovery", params)


def moves(moves: tuple[Move, ...], *, dry_run: bool) -> Call:
    """Asked to explain, the engine answers 200 also for a move that it does not allow, and makes the others."""
    commands = [
        {"move": {"index": one.index, "shard": one.shard, "from_node": one.source, "to_node": one.target}}
        for one in moves
    ]
    params = {"explain": "true", "metric": "none", "filter_path": "explanations"}
    if dry_run:
        params["dry_run"] = "true"
    return Call("POST", "/_cluster/reroute", params, body={"commands": commands}, master=True)
