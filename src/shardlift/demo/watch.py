"""Follows an upgrade through UpgradeDetail, and holds the answers to what the API promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardlift.demo.css_client import CssClient
from shardlift.errors import ShardliftError

_POLL_S = 0.5  # the API has no other way to learn of progress
_ORDERS = list(range(13))


@dataclass(slots=True)
class Watcher:
    """Takes one answer after the other; `objections` has one line for each promise that an answer broke.

    Promises: a node in work shows orders 0 to 12; a sub-step's end is not before its begin, and a later one does not
    begin before an earlier one; nodes once completed stay so; counts agree with names.
    """

    say: Callable[[str], None]
    objections: list[str] = field(default_factory=list)
    polls: int = 0
    _completed: tuple[str, ...] = ()
    _told: set[tuple[str, int, str]] = field(default_factory=set)

    def take(self, task: Mapping[str, Any]) -> None:
        self.polls += 1
        self._take_completed(task)
        node = task["currentNodeName"]
        steps = task["currentNodeDetail"]
        if node and [step["order"] for step in steps] != _ORDERS:
            self._object(f"{node}: orders are {[step['order'] for step in steps]}")
        self._take_times(node, steps)
        for step in steps:
            self._tell(node, step)

    def _take_completed(self, task: Mapping[str, Any]) -> None:
        completed = _names(task["completedNodes"])
        gone = set(self._completed) - set(completed)
        if gone:
            self._object(f"completedNodes lost {sorted(gone)}")
        if not set(completed) <= set(_names(task["totalNodes"])):
            self._object(f"completedNodes {completed} are not all among totalNodes {task['totalNodes']}")
        for node in completed:
            if node not in self._completed:
                self.say(f"{node}: done ({len(completed)} of {len(_names(task['totalNodes']))})")
        self._completed = completed

    def _take_times(self, node: str, steps: list[Mapping[str, Any]]) -> None:
        latest = ""
        for step in steps:  # times of this form sort as text
            begin, end = step["beginTime"], step["endTime"]
            if begin and begin < latest:
                self._object(f"{node}: {step['order']} {step['name']} begins at {begin}, before {latest}")
            if begin and end and end < begin:
                self._object(f"{node}: {step['order']} {step['name']} ends at {end}, before {begin}")
            latest = max(latest, begin)

    def _tell(self, node: str, step: Mapping[str, Any]) -> None:
        line = (node, int(step["order"]), str(step["status"]))
        if node and step["status"] != "WAITING" and line not in self._told:
            self._told.add(line)
            self.say(f"{node}: {step['order']:>2} {step['name']}: {step['status']}")

    def _object(self, text: str) -> None:
        if text not in self.objections:
            self.objections.append(text)


async def watch(client: CssClient, cluster_id: str, watcher: Watcher, *, timeout_s: float) -> str:
    """Polls until the newest task is no longer RUNNING, and returns its last status. Raises ShardliftError in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        task = (await client.details(cluster_id))[0]
        watcher.take(task)
        if task["status"] != "RUNNING":
            return str(task["status"])
        await asyncio.sleep(_POLL_S)
    raise ShardliftError(f"the upgrade was still RUNNING after {timeout_s:.0f} s")


def _names(joined: str) -> tuple[str, ...]:
    return tuple(name for name in joined.split(",") if name)
