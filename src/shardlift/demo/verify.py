"""Reads back everything that a cluster acknowledged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.probe import Probe, Written
from shardlift.errors import EngineError

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Verified:
    """`found` of the `acknowledged` writes are there, unchanged, on every copy that was read.

    `lost` names the others, `surplus` counts documents of the run beyond the ids that it wrote (duplicates).
    """

    acknowledged: int
    found: int
    lost: tuple[str, ...]
    surplus: int

    @property
    def good(self) -> bool:
        return not self.lost and self.surplus == 0


async def verify_probe(client: ClusterClient, urls: Sequence[str], probe: Probe) -> Verified:
    """Reads all writes of the probe from each node, which prefers the copy that it holds itself: so every copy is read.

    Raises EngineError when a node does not answer: unread is not found, but it is not lost either.
    """
    indices = sorted({w.index for w in (*probe.acknowledged, *probe.doubtful)})
    await _refresh(client, indices)
    missing: set[str] = set()
    for url in urls:
        missing |= await _missing(client, url, probe.acknowledged, probe.run_id)
    present_doubtful = len(probe.doubtful) - len(await _missing(client, urls[0], probe.doubtful, probe.run_id))
    existing = 0
    for index in indices:
        existing += await count(client, index, {"term": {"run.keyword": probe.run_id}})
    expected = len(probe.acknowledged) - len(missing) + present_doubtful
    return Verified(
        acknowledged=len(probe.acknowledged),
        found=len(probe.acknowledged) - len(missing),
        lost=tuple(sorted(missing)),
        surplus=max(existing - expected, 0),
    )


async def count(client: ClusterClient, index: str, query: Mapping[str, object]) -> int:
    """Documents of the index that match, over all shards. Raises EngineError when not all shards answered."""
    body = json.dumps({"query": query}).encode()
    outcome = await client.call(
        Call("POST", f"/{index}/_count", body), good=lambda answer: answer["_shards"]["failed"] == 0
    )
    if not outcome.ok:
        raise EngineError(f"the documents of {index} could not be counted: {outcome}")
    return int(outcome.body["count"])


async def _refresh(client: ClusterClient, indices: Iterable[str]) -> None:
    for index in indices:
        outcome = await client.call(Call("POST", f"/{index}/_refresh"))
        if not outcome.ok:
            raise EngineError(f"{index} could not be refreshed: {outcome}")


async def _missing(client: ClusterClient, url: str, written: Sequence[Written], run_id: str) -> set[str]:
    """Ids that the node does not find, or finds with other content."""
    missing: set[str] = set()
    for index, page in _pages(written):
        body = json.dumps({"ids": [one.id for one in page]}).encode()
        outcome = await client.ask(url, Call("POST", f"/{index}/_mget?preference=_local", body))
        if not outcome.ok:
            raise EngineError(f"the written documents could not be read back: {outcome}")
        sources = {doc["_id"]: doc.get("_source", {}) for doc in outcome.body["docs"] if doc.get("found")}
        for one in page:
            source = sources.get(one.id, {})
            if source.get("run") != run_id or source.get("number") != one.number:
                missing.add(one.id)
    return missing


def _pages(written: Sequence[Written]) -> Iterator[tuple[str, tuple[Written, ...]]]:
    """At most 500 documents of one index at a time."""
    by_index = sorted(written, key=lambda one: one.index)
    for index, group in itertools.groupby(by_index, key=lambda one: one.index):
        yield from ((index, page) for page in _chunks(group))


def _chunks(group: Iterable[Written]) -> Iterator[tuple[Written, ...]]:
    rest = iter(group)
    while page := tuple(itertools.islice(rest, _PAGE)):
        yield page
