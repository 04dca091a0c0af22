"""The real engine: one cluster's REST API, the same for Elasticsearch 6.8 to 8.x and OpenSearch 1.x to 3.x.

Each method is one or a few calls (`engine.calls`), sent by `engine.transport` to a node that answers, and read by the
pure functions of `engine.parse*`. What an engine does not have is told by its version, never by trying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from shardlift.engine import calls, parse, parse_indices, parse_nodes
from shardlift.engine.transport import Call, Transport
from shardlift.errors import EngineError
from shardlift.model import (
    BackupSeen,
    ClusterSettings,
    CopyState,
    EngineKind,
    Explanation,
    Health,
    HealthSeen,
    IndexSeen,
    Move,
    MoveVerdict,
    Node,
    NodeSeen,
    Observation,
    Recovery,
    RetainedCopy,
    ShardCopy,
    Version,
    VotingSeen,
)

T = TypeVar("T")

_ANSWERS_WITHIN_S = 2.0
_STATUS_OK = frozenset({401, 405})  # locked, or Elasticsearch 8 without its root page: HTTP is served
_STATUS_NO_MASTER = 503
_FIRST_VOTING = Version(7, 0, 0)
_FIRST_VOTING_BY_NAME = Version(7, 8, 0)
_PLAIN_FLUSH = Version(7, 6, 0)  # from here on a plain flush does what a synced one did
_FIRST_DANGLING = Version(7, 9, 0)
_DETAILED_SNAPSHOTS = 10  # of each repository: every one is a file to be read there
_ALL_RECOVERIES = Version(7, 2, 0)  # before, a closed index has no shards, and asking for it is an error


class RestEngine:
    """Implements `engine.protocol.Engine`.

    `endpoints`: node name to base URL, for every node that may be asked. `request_timeout_s` bounds each call; a long
    poll and a flush may take their own time on top.
    """

    def __init__(self, endpoints: Mapping[str, str], *, request_timeout_s: float = 10) -> None:
        self._transport = Transport(endpoints, request_timeout_s=request_timeout_s)
        self._no_elder = False  # seen once, it stays so: nodes only get younger

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def observe(self) -> Observation:
        at = datetime.now(UTC)
        health, members, routing, metadata, settings, sizes, running, work, listings = await asyncio.gather(
            self.health(),
            self._members_with_load(),
            self._ask(calls.ROUTING, lambda state: (parse_indices.copies(state), parse_nodes.names(state))),
            self._ask(calls.METADATA, lambda state: state),
            self._ask(calls.ALL_SETTINGS, parse.all_settings),
            self._or_none(self._ask(calls.SIZES, parse_indices.sizes)),
            self._or_none(self._ask(calls.RUNNING_SNAPSHOTS, parse.running_snapshots)),
            self._or_none(self._ask(calls.RUNNING_WORK, parse.running_work)),
            self._or_none(self._snapshot_listings()),
        )
        copies, node_names = routing
        nodes, elected = members
        ids = {name: node_id for node_id, name in node_names.items()}
        indices = _read(calls.METADATA, parse_indices.indices, metadata)
        dangling, backups = await asyncio.gather(self._dangling(nodes), self._backups(listings or {}, indices))
        return Observation(
            at=at,
            health=health,
            nodes=nodes,
            elected=elected,
            shards=parse_indices.with_sizes(copies, ids, sizes or {}),
            indices=indices,
            settings=settings,
            voting=_read(calls.METADATA, parse.voting, metadata),
            running_snapshots=running,
            snapshotted=None if listings is None else parse.snapshotted(listings.values(), indices),
            running_work=work,
            dangling=dangling,
            backups=backups,
            leaving=frozenset(
                node_names[node_id]
                for node_id in _read(calls.METADATA, parse.leaving, metadata)
                if node_id in node_names
            ),
        )

    async def nodes(self) -> tuple[NodeSeen, ...]:
        return (await self._members())[0]

    async def nodes_with_load(self) -> tuple[NodeSeen, ...]:
        return (await self._members_with_load())[0]

    async def elected(self) -> str | None:
        try:
            return await self._ask(calls.ELECTED, parse_nodes.elected)
        except EngineError as error:
            if error.status == _STATUS_NO_MASTER:
                return None
            raise

    async def answers(self, node: str) -> bool:
        try:
            if not self._transport.knows(node):  # a spare node, which is no node of the cluster's own
                return bool((await self._transport.ask(calls.heard_of(node))).get("nodes"))
            await self._transport.ask_node(node, calls.ROOT, timeout_s=_ANSWERS_WITHIN_S)
        except EngineError as error:
            return error.status in _STATUS_OK
        return True

    async def health(
        self,
        *,
        wait_settled: bool = False,
        wait_status: Health | None = None,
        timeout_s: float = 0,
    ) -> HealthSeen:
        call = calls.health(wait_settled=wait_settled, wait_status=wait_status, timeout_s=timeout_s)
        return await self._ask(call, parse.health)

    async def shards(self) -> tuple[ShardCopy, ...]:
        return await self._ask(calls.ROUTING, parse_indices.copies)

    async def settings(self, *, defaults: bool = False) -> ClusterSettings:
        if defaults:
            return await self._ask(calls.ALL_SETTINGS, parse.all_settings)
        return await self._ask(calls.SETTINGS, parse.settings)

    async def configured(self, key: str) -> Mapping[str, str | None]:
        return await self._ask(calls.CONFIGURED, lambda body: parse_nodes.configured(body, key))

    async def put_setting(self, layer: str, key: str, value: str | None) -> None:
        await self._transport.ask(calls.put_setting(layer, key, value))

    async def voting(self) -> VotingSeen | None:
        return await self._ask(calls.VOTING, parse.voting)

    async def exclude_from_voting(self, node: str) -> bool:
        """Answers when the configuration stands; an elected master steps down up to a second later."""
        oldest = await self._oldest_elasticsearch()
        if _before(oldest, _FIRST_VOTING):
            return False
        by_name = not _before(oldest, _FIRST_VOTING_BY_NAME)
        await self._transport.ask(calls.exclude_from_voting(node, by_name=by_name))
        return True

    async def clear_voting_exclusions(self) -> None:
        if not _before(await self._oldest_elasticsearch(), _FIRST_VOTING):
            await self._transport.ask(calls.CLEAR_VOTING)

    async def explain(self, copy: ShardCopy) -> Explanation:
        node = copy.node if copy.state is not CopyState.UNASSIGNED else None
        return await self._ask(calls.explain(copy, node), lambda body: parse.explanation(copy, body))

    async def try_moves(self, moves: tuple[Move, ...]) -> tuple[MoveVerdict, ...]:
        return await self._ask(calls.moves(moves, dry_run=True), lambda body: parse.move_verdicts(moves, body))

    async def move(self, moves: tuple[Move, ...]) -> tuple[MoveVerdict, ...]:
        return await self._ask(calls.moves(moves, dry_run=False), lambda body: parse.move_verdicts(moves, body))

    async def flush(self) -> None:
        synced = _before(await self._oldest_elasticsearch(), _PLAIN_FLUSH)
        await self._transport.ask(calls.flush(synced=synced))

    async def retained(self, node: str) -> tuple[RetainedCopy, ...]:
        return await self._ask(calls.retained(node), parse.retained)

    async def in_flight(self, node: str) -> int | None:
        try:
            body = await self._transport.ask_node(node, calls.CLIENT_REQUESTS, timeout_s=_ANSWERS_WITHIN_S)
            return _read(calls.CLIENT_REQUESTS, parse.client_requests, body)
        except EngineError:
            return None

    async def recoveries(self) -> tuple[Recovery, ...]:
        if not self._no_elder:
            self._no_elder = not _before(await self._oldest_elasticsearch(), _ALL_RECOVERIES)
        return await self._ask(calls.recoveries(hidden_and_closed=self._no_elder), parse.recoveries)

    async def close(self) -> None:
        await self._transport.close()

    async def _members(self) -> tuple[tuple[NodeSeen, ...], str | None]:
        state, info = await asyncio.gather(self._transport.ask(calls.MEMBERS), self._transport.ask(calls.NODES))
        nodes = _read(calls.NODES, lambda body: parse_nodes.members(state, body), info)
        doubtful = [name for name in parse_nodes.disguised(nodes) if self._transport.knows(name)]
        told = await asyncio.gather(*(self._or_none(self._own_version(name)) for name in doubtful))
        nodes = parse_nodes.with_own_versions(nodes, dict(zip(doubtful, told, strict=True)))
        return nodes, _read(calls.MEMBERS, parse_nodes.elected, state)

    async def _members_with_load(self) -> tuple[tuple[NodeSeen, ...], str | None]:
        (nodes, elected), stats, processors = await asyncio.gather(
            self._members(),
            self._or_none(self._transport.ask(calls.STATS)),
            self._or_none(self._transport.ask(calls.PROCESSORS)),
        )
        if stats is not None:
            nodes = _read(calls.STATS, lambda body: parse_nodes.with_load(nodes, body), stats)
        if processors is not None:
            nodes = _read(calls.PROCESSORS, lambda body: parse_nodes.with_processors(nodes, body), processors)
        return nodes, elected

    async def _own_version(self, node: str) -> Version:
        body = await self._transport.ask_node(node, calls.OWN_VERSION, timeout_s=_ANSWERS_WITHIN_S)
        return _read(calls.OWN_VERSION, lambda found: min(parse_nodes.versions(found)), body)

    async def _snapshot_listings(self) -> dict[str, Any]:
        """Names, states and indices of all snapshots, by repository."""
        repositories = await self._ask(calls.REPOSITORIES, list)
        asked = (self._ask(calls.snapshots(name), parse.listing) for name in repositories)
        return dict(zip(repositories, await asyncio.gather(*asked), strict=True))

    async def _backups(self, listings: dict[str, Any], indices: tuple[IndexSeen, ...]) -> dict[str, BackupSeen]:
        """The newest snapshot of each index in any repository; without its details where these cannot be read."""
        newest: dict[str, BackupSeen] = {}
        for repository, listing in listings.items():
            names = parse.newest_listed(listing, indices, _DETAILED_SNAPSHOTS)
            call = calls.snapshot_details(repository, names)
            details = await self._or_none(self._ask(call, parse.snapshot_details)) if names else None
            found = parse.backups(listing, details or {}, indices)
            newest.update((name, parse.newer(newest.get(name), backup)) for name, backup in found.items())
        return newest

    async def _dangling(self, nodes: tuple[NodeSeen, ...]) -> tuple[str, ...] | None:
        """None where some node cannot tell."""
        if any(node.engine is EngineKind.ELASTICSEARCH and node.version < _FIRST_DANGLING for node in nodes):
            return None
        found: tuple[str, ...] | None = await self._or_none(self._ask(calls.DANGLING, parse.dangling))
        return found

    async def _oldest_elasticsearch(self) -> Version | None:
        """The oldest version in the cluster if any node is Elasticsearch, which is older than all OpenSearch."""
        found = await self._ask(calls.VERSIONS, parse_nodes.versions)
        elder = [version for version in found if parse_nodes.engine_of(version) is EngineKind.ELASTICSEARCH]
        return min(elder, default=None)

    async def _ask(self, call: Call, read: Callable[[Any], T]) -> T:
        return _read(call, read, await self._transport.ask(call))

    @staticmethod
    async def _or_none(reading: Any) -> Any:
        """The reading's result, None when it failed: for what the rules can do without, told as unknown."""
        try:
            return await reading
        except EngineError:
            return None


def open_engine(nodes: Iterable[Node], *, request_timeout_s: float = 10) -> RestEngine:
    """The engine of the cluster that these nodes make up. Close it after use."""
    return RestEngine({node.name: node.url for node in nodes}, request_timeout_s=request_timeout_s)


def _read(call: Call, read: Callable[[Any], T], body: Any) -> T:
    """What `read` makes of the body. Raises EngineError, naming the call, when it is not shaped as expected."""
    try:
        return read(body)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(
            f"{call.method} {call.path}: the answer is not what an engine sends ({type(error).__name__}: {error})"
        ) from error


def _before(oldest: Version | None, first: Version) -> bool:
    """Whether some node is too old for what came with `first`. `oldest`: None when there is no Elasticsearch."""
    return oldest is not None and oldest < first
