"""Load on a cluster while something is done to it, and the proof afterwards that no acknowledged write was lost.

Open loop: calls start at a fixed rate whether or not earlier ones have been answered, and latency counts from when the
call was due. So a stall of the cluster is seen by all calls that were due meanwhile, not only by the one that hung.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardlift.demo.client import Call, ClusterClient, Outcome

_IN_FLIGHT_MAX = 2000
_KEPT_ERRORS_MAX = 20
_WARM = 40


@dataclass(frozen=True, slots=True)
class Rates:
    """Calls per second; the defaults leave two cores room for the engines, of which each write costs two an fsync."""

    writes: float = 20.0
    searches: float = 5.0


@dataclass(slots=True)
class Tally:
    """What became of one kind of call.

    `met_down`: the first try went to a node that takes no connections, as each node does for a while in an upgrade.
    `first_try_failed`: it failed in any other way, such as a connection that broke under it.
    """

    sent: int = 0
    good: int = 0
    met_down: int = 0
    first_try_failed: int = 0
    failed: int = 0
    longest_gap_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _last_good_at: float | None = None

    def begin(self, now: float) -> None:
        """The gap before the first good answer counts too."""
        self._last_good_at = now

    def note(self, outcome: Outcome, due: float, now: float) -> None:
        if outcome.unsent:
            self.met_down += 1
        elif not outcome.at_once:
            self.first_try_failed += 1
            if len(self.errors) < _KEPT_ERRORS_MAX and str(outcome) not in self.errors:
                self.errors.append(str(outcome))
        if not outcome.ok:
            self.failed += 1
            if len(self.failures) < _KEPT_ERRORS_MAX:
                self.failures.append(str(outcome))
            return
        self.good += 1
        self.latencies_s.append(now - due)
        self.note_gap(now)

    def note_gap(self, now: float) -> None:
        if self._last_good_at is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self._last_good_at)
        self._last_good_at = now

    def latency_s(self, quantile: float) -> float:
        """0.5 is the median. 0.0 when nothing was answered."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Written:
    """One document of the probe: where it was sent, and the number in it, by which it is known again."""

    index: str
    id: str
    number: int


class Probe:
    """Writes and searches at fixed rates from `run` on, until its `stop` event is set.

    Each write has an id of its own. The first try creates the document; a later try of the same write may find that the
    first one got through although its answer did not, so later tries put the same content under the same id. Only a
    successful answer makes a write acknowledged.
    """

    def __init__(self, client: ClusterClient, indices: Sequence[str], rates: Rates | None = None) -> None:
        self.run_id = uuid.uuid4().hex
        self.writes = Tally()
        self.searches = Tally()
        self.acknowledged: list[Written] = []
        self.doubtful: list[Written] = []
        self.warm = asyncio.Event()
        """Set once the cluster has acknowledged some writes: from then on a gap means something."""
        self._client = client
        self._indices = tuple(indices)
        self._rates = rates or Rates()

    async def run(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set and every call has been answered or given up."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._at_rate(self._rates.writes, self.writes, self._write, stop))
            group.create_task(self._at_rate(self._rates.searches, self.searches, self._search, stop))

    async def _at_rate(
        self, per_s: float, tally: Tally, act: Callable[[int], Awaitable[Outcome]], stop: asyncio.Event
    ) -> None:
        async def one(number: int, due: float) -> None:
            outcome = await act(number)
            tally.note(outcome, due, time.monotonic())

        begin = time.monotonic()
        tally.begin(begin)
        running: set[asyncio.Task[None]] = set()
        try:
            while not stop.is_set():
                due = begin + tally.sent / per_s
                await _until(due, stop)
                if stop.is_set():
                    break
                if len(running) >= _IN_FLIGHT_MAX:  # bounds memory; the calls that are due are then late, and say so
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(one(tally.sent, due))
                running.add(task)
                task.add_done_callback(running.discard)
                tally.sent += 1
            if running:
                await asyncio.wait(running)
            if tally.good < tally.sent:
                tally.note_gap(time.monotonic())
        finally:
            for task in running:
                task.cancel()

    async def _write(self, number: int) -> Outcome:
        written = Written(self._indices[number % len(self._indices)], f"{self.run_id}-{number}", number)
        path = f"/{written.index}/_doc/{written.id}"
        body = json.dumps({"run": self.run_id, "number": number, "body": f"probe {number} of a client"}).encode()
        outcome = await self._client.call(Call("PUT", path + "?op_type=create", body, again_path=path))
        (self.acknowledged if outcome.ok else self.doubtful).append(written)
        if len(self.acknowledged) >= _WARM:
            self.warm.set()
        return outcome

    async def _search(self, number: int) -> Outcome:
        index = self._indices[number % len(self._indices)]
        body = json.dumps({"size": 3, "query": {"match": {"body": "client"}}}).encode()
        return await self._client.call(Call("POST", f"/{index}/_search", body), good=_complete)


def _complete(answer: Any) -> bool:
    """All shards answered: a search over fewer is silently short of documents."""
    shards = answer.get("_shards", {}) if isinstance(answer, dict) else {}
    return bool(shards.get("total")) and shards.get("failed") == 0 and not answer.get("timed_out")


async def _until(due: float, stop: asyncio.Event) -> None:
    """Waits until that moment of the monotonic clock, or for the stop."""
    left_s = due - time.monotonic()
    if left_s > 0:
        try:
            await asyncio.wait_for(stop.wait(), timeout=left_s)
        except TimeoutError:
            return
    else:
        await asyncio.sleep(0)  # behind schedule: the answers must get their turn too
