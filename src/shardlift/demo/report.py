"""What a run came to: figures, and whether it was good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardlift.demo.probe import Tally
from shardlift.demo.stage import Probed
from shardlift.model import Image, StepStatus, Strategy, Task

_BOOT = 10


@dataclass(frozen=True, slots=True)
class Report:
    """One upgrade under load. `objections` has a line for each answer of the API that broke a promise."""

    source: str
    target: Image
    strategy: Strategy
    task: Task
    status: str
    seen: Probed[str]
    objections: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each thing that must not be; empty when the run was good."""
        return (*self._of_the_task(), *client_problems(self.seen), *self.objections)

    def _of_the_task(self) -> list[str]:
        found = []
        if self.status != "SUCCESS":
            found.append(f"the task ended {self.status}: {self.task.fail_message}")
        wrong = {node: version for node, version in self.seen.versions.items() if version != str(self.target.version)}
        if wrong:
            found.append(f"nodes that do not run {self.target.version}: {wrong}")
        return found

    def figures(self) -> list[tuple[str, str, object]]:
        """(JSON name, words, value) in the order shown."""
        boots = boots_s(self.task)
        return [
            ("from", "from", self.source),
            ("to", "to", self.target.reference),
            ("strategy", "strategy", str(self.strategy)),
            ("status", "task", self.status),
            ("wall_s", "wall time, s", round(self.seen.wall_s, 1)),
            ("boots_s", "sum of engine boots, s", round(boots, 1)),
            ("wall_per_boots", "wall time / boots", round(self.seen.wall_s / boots, 2) if boots else None),
            ("bytes_moved", "bytes moved", self.task.bytes_moved),
            *client_figures(self.seen),
        ]


def boots_s(task: Task) -> float:
    """Seconds from process start to HTTP answer, summed over all nodes."""
    return sum(
        (row.end - row.begin).total_seconds() for row in task.steps if row.order == _BOOT and row.begin and row.end
    )


def client_problems(seen: Probed[str]) -> list[str]:
    found = []
    if seen.verified.lost:
        found.append(f"acknowledged documents that are gone: {len(seen.verified.lost)}, e.g. {seen.verified.lost[:3]}")
    if seen.verified.surplus:
        found.append(f"documents that are there more than once: {seen.verified.surplus}")
    if seen.loaded_found != seen.loaded:
        found.append(f"of {seen.loaded} loaded documents {seen.loaded_found} are there")
    for kind, tally in (("writes", seen.probe.writes), ("searches", seen.probe.searches)):
        if tally.failed:
            found.append(f"{kind} that failed on every node: {tally.failed}, e.g. {tally.failures[:2]}")
    return found


def client_figures(seen: Probed[str]) -> list[tuple[str, str, object]]:
    writes, searches = seen.probe.writes, seen.probe.searches
    both: Sequence[Tally] = (writes, searches)
    return [
        ("requests", "client requests", sum(tally.sent for tally in both)),
        ("met_down", "first tries that met the node that was down", sum(tally.met_down for tally in both)),
        ("failed_first_try", "first tries that failed otherwise", sum(tally.first_try_failed for tally in both)),
        ("failed_after_retry", "failed after retries on other nodes", sum(tally.failed for tally in both)),
        ("write_p50_ms", "write latency p50, ms", _ms(writes.latency_s(0.5))),
        ("write_p99_ms", "write latency p99, ms", _ms(writes.latency_s(0.99))),
        ("search_p99_ms", "search latency p99, ms", _ms(searches.latency_s(0.99))),
        ("write_gap_ms", "longest gap between good writes, ms", _ms(writes.longest_gap_s)),
        ("search_gap_ms", "longest gap between good searches, ms", _ms(searches.longest_gap_s)),
        ("acknowledged", "documents acknowledged", seen.verified.acknowledged),
        ("found", "of them found on every copy", seen.verified.found),
        ("loaded", "documents loaded before", seen.loaded),
        ("loaded_found", "of them found", seen.loaded_found),
        ("versions", "versions the nodes report", ", ".join(sorted(set(seen.versions.values())))),
    ]


def failing_step(task: Task) -> list[str]:
    """The failed sub-step with its evidence, line by line; empty when none failed."""
    lines = []
    for row in task.steps:
        if row.status is StepStatus.FAILED:
            lines.append(f"failed: {row.node}: {row.order} {row.name}: {row.desc}")
            for name, value in row.evidence.items():
                shown = "\n    ".join(str(item) for item in value) if isinstance(value, list | tuple) else value
                lines.append(f"  {name}: {shown}")
    return lines


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
