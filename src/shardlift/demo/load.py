"""Documents for the demo's cluster: seeded, so that each run moves the same bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from shardlift.demo.client import Call, ClusterClient
from shardlift.errors import EngineError
from shardlift.model import AWARE_OF, EngineKind, Image

INDICES = ("orders", "customers", "events", "metrics")
SHARDS = 2
_PAGE = 500
_WORDS_PER_DOCUMENT = 60


async def keep_apart(client: ClusterClient) -> None:
    """No zone holds two copies of a shard: awareness of zones. Raises EngineError when it is refused."""
    body = {"persistent": {AWARE_OF: "zone"}}
    await must(client, Call("PUT", "/_cluster/settings", json.dumps(body).encode()), "awareness of zones was refused")


async def create_indices(client: ClusterClient) -> None:
    """Each index with two shards and one replica, all copies started. Raises EngineError when they do not start."""
    for index in INDICES:
        body = {"settings": {"index": {"number_of_shards": SHARDS, "number_of_replicas": 1}}}
        await must(client, Call("PUT", f"/{index}", json.dumps(body).encode()), f"index {index} was not created")
    path = "/_cluster/health?wait_for_status=green&timeout=60s"
    await must(client, Call("GET", path), "the new indices did not become green")


async def load(client: ClusterClient, image: Image, documents: int) -> None:
    """Writes that many documents, dealt to the indices in turn, and flushes. Raises EngineError on any refusal."""
    for index, body in _pages(documents):
        await write(client, image, index, body)
    for what in ("_refresh", "_flush"):
        await must(client, Call("POST", f"/{','.join(INDICES)}/{what}"), f"{what} of the loaded indices failed")


async def write(client: ClusterClient, image: Image, index: str, body: bytes) -> None:
    """Writes documents by one request, `body` as `_bulk` wants it. Raises EngineError when one is refused."""
    # 6.x wants a type in the path, 8.x and OpenSearch 2 refuse one.
    typed = "/_doc" if image.engine is EngineKind.ELASTICSEARCH and image.version.major < 7 else ""  # noqa: PLR2004
    call = Call("POST", f"/{index}{typed}/_bulk", body, content_type="application/x-ndjson")
    answer = await must(client, call, f"documents were not written to {index}")
    if answer["errors"]:
        first = next(item["index"] for item in answer["items"] if item["index"]["status"] >= 300)  # noqa: PLR2004
        raise EngineError(f"{index} refused documents, the first with {first.get('error')}")


async def must(client: ClusterClient, call: Call, what: str) -> dict[str, list[dict[str, dict[str, int]]]]:
    """The answer's body. Raises EngineError, which begins with `what`, when there is no good one."""
    outcome = await client.call(call)
    if not outcome.ok:
        raise EngineError(f"{what}: {outcome}")
    body: dict[str, list[dict[str, dict[str, int]]]] = outcome.body
    return body


def share(documents: int, index: str) -> int:
    """How many of the documents the index gets."""
    position = INDICES.index(index)
    return documents // len(INDICES) + (1 if position < documents % len(INDICES) else 0)


def _pages(documents: int) -> Iterator[tuple[str, bytes]]:
    numbers = random.Random(20190704)  # noqa: S311 - filler, not secrets
    vocabulary = [f"{numbers.getrandbits(40):x}" for _ in range(5000)]
    for index in INDICES:
        total = share(documents, index)
        for begin in range(0, total, _PAGE):
            lines = []
            for number in range(begin, min(begin + _PAGE, total)):
                words = " ".join(numbers.choices(vocabulary, k=_WORDS_PER_DOCUMENT))
                lines.append(json.dumps({"index": {"_id": f"loaded-{number}"}}))
                lines.append(json.dumps({"run": "loaded", "number": number, "body": f"client {words}"}))
            yield index, ("\n".join(lines) + "\n").encode()
