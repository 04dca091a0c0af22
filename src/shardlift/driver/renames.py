"""Settings of a node's yml that engines renamed or removed, with the versions that no longer know them.

The names are those that real nodes of one release listed as their defaults and real nodes of a later one did not:
6.8.23 against 7.10.2, 7.17.29 against 8.19.21, OpenSearch 1.3.20 against 2.19.4, and 2.19.4 against 3.4.0. A node that
finds a setting it does not know does not start.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A setting, or with a trailing dot all that begin so, renamed to `new` or (None) dropped, from these versions."""

    old: str
    new: str | None
    elasticsearch: str
    opensearch: str
    why: str = ""


_ALWAYS = "0.0.0"
_NEVER = "9999.0.0"
_REMOVED = "it was removed"
_BOOTSTRAP = "it may only bootstrap a new cluster, and this node joins one"
_COORDINATION = "the quorum is kept by the cluster itself since 7.0"
_SEARCH_POOLS = ("search", "search_throttled")
_AUTO_QUEUE = ("auto_queue_frame_size", "max_queue_size", "min_queue_size", "target_response_time")


def _gone(elasticsearch: str, opensearch: str, *names: str, why: str = _REMOVED) -> tuple[Change, ...]:
    return tuple(Change(name, None, elasticsearch, opensearch, why) for name in names)


def _auto_queues(elasticsearch: str, opensearch: str, *pools: str) -> tuple[Change, ...]:
    names = (f"thread_pool.{pool}.{name}" for pool in pools for name in _AUTO_QUEUE)
    return _gone(elasticsearch, opensearch, *names, why="queues of search no longer resize themselves")


# The first that fits a setting counts.
CHANGES = (
    # Elasticsearch 7.0; OpenSearch began where 7.10 was
    Change("transport.tcp.port", "transport.port", "7.0.0", "1.0.0"),
    Change("transport.tcp.compress", "transport.compress", "7.0.0", "1.0.0"),
    Change("transport.tcp.connect_timeout", "transport.connect_timeout", "7.0.0", "1.0.0"),
    Change("discovery.zen.ping.unicast.hosts", "discovery.seed_hosts", "7.0.0", "1.0.0"),
    Change("discovery.zen.hosts_provider", "discovery.seed_providers", "7.0.0", "1.0.0"),
    *_gone("7.0.0", "1.0.0", "discovery.zen.", why=_COORDINATION),
    Change("thread_pool.bulk.", "thread_pool.write.", "7.0.0", "1.0.0"),
    *_gone("7.0.0", "1.0.0", "thread_pool.index.", why="the write pool took its place"),
    Change("node.store.allow_mmapfs", "node.store.allow_mmap", "7.0.0", "1.0.0"),
    *_gone("7.0.0", "1.0.0", "http.enabled", "http.pipelining", why="HTTP is always on, and pipelines"),
    *_gone("7.0.0", "1.0.0", "http.netty.receive_predictor_min", "http.netty.receive_predictor_max"),
    *_gone("7.0.0", "1.0.0", "action.master.force_local"),
    # of whatever version: an old cluster's first words
    *_gone(_ALWAYS, _ALWAYS, "cluster.initial_master_nodes", "cluster.initial_cluster_manager_nodes", why=_BOOTSTRAP),
    # Elasticsearch 8.0
    *_gone("8.0.0", _NEVER, "bootstrap.system_call_filter", "node.max_local_storage_nodes", "node.local_storage"),
    *_gone("8.0.0", _NEVER, "cluster.join.timeout", "gateway.auto_import_dangling_indices"),
    *_gone("8.0.0", _NEVER, "http.content_type.required", "repositories.fs.compress", "thread_pool.listener."),
    *_gone("8.0.0", _NEVER, "cluster.routing.allocation.disk.include_relocations"),
    *_gone("8.0.0", _NEVER, "cluster.routing.allocation.shard_state.reroute.priority", "transport.features.x-pack"),
    *_gone("8.0.0", _NEVER, "pidfile", "node.pidfile", why="the command line says it"),
    *_gone("8.0.0", _NEVER, "cluster.remote.connect", "search.remote.connect", why="a role of the node says it"),
    *_gone("8.0.0", _NEVER, "node.remote_cluster_client", why="node.roles says it; without that a node has this role"),
    *_gone(
        "8.0.0", _NEVER, *(f"cluster.routing.allocation.{what}._tier" for what in ("include", "exclude", "require"))
    ),
    *_auto_queues("8.0.0", "3.0.0", *_SEARCH_POOLS),
    Change("processors", "node.processors", "8.0.0", _NEVER),
    Change("http.tcp_no_delay", "http.tcp.no_delay", "8.0.0", _NEVER),
    Change("transport.tcp_no_delay", "transport.tcp.no_delay", "8.0.0", _NEVER),
    Change("network.tcp.connect_timeout", "transport.connect_timeout", "8.0.0", _NEVER),
    # Elasticsearch 8.0 and OpenSearch 2.0
    *_gone("8.0.0", "2.0.0", "client.transport.", why="the transport client is gone"),
    *_gone("8.0.0", "2.0.0", "indices.breaker.accounting."),
    Change("search.remote.", "cluster.remote.", "8.0.0", "2.0.0"),
    # Elasticsearch 8.0 and OpenSearch 3.0
    *_gone("8.0.0", "3.0.0", "gateway.expected_nodes", "gateway.expected_master_nodes"),
    *_gone("8.0.0", "3.0.0", "gateway.recover_after_nodes", "gateway.recover_after_master_nodes"),
    # OpenSearch 3.0
    *_auto_queues(_NEVER, "3.0.0", "index_searcher"),
    *_gone(_NEVER, "3.0.0", "compatibility.override_main_response_version", "index.store.hybrid.mmap.extensions"),
    *_gone(
        _NEVER,
        "3.0.0",
        *(
            f"opensearch.experimental.feature.{name}.enabled"
            for name in ("composite_index.star_tree", "pluggable.caching", "read.write.split", "tiered_remote_index")
        ),
        why="it is no experiment any more",
    ),
    Change(
        "cluster.service.slow_master_task_logging_threshold",
        "cluster.service.slow_cluster_manager_task_logging_threshold",
        _NEVER,
        "3.0.0",
    ),
    Change("wlm.query_group.", "wlm.workload_group.", _NEVER, "3.0.0"),
    # from Elasticsearch to OpenSearch
    *_gone(_NEVER, _ALWAYS, "xpack.", why="OpenSearch has no X-Pack"),
    *_gone(_NEVER, _ALWAYS, "node.ml", "node.transform", "node.voting_only", why="OpenSearch has no such role"),
)
