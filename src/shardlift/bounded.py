"""A memory of what was used last, bounded by weight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    weight: int
    used: int  # how many puts there had been when it was last used


class Bounded(Generic[K, V]):
    """Keeps what was asked for last, together at most `weight_max` heavy; what is heavier by itself is not kept.

    What is used twice with no put in between keeps its place in line: nothing can be dropped before the next put, and
    to take a place in line touches memory of its neighbours. `gone` is told each value that is no longer kept.
    """

    def __init__(self, weight_max: int, gone: Callable[[V], None] = lambda _value: None) -> None:
        self._max = weight_max
        self._weight = 0
        self._puts = 0
        self._gone = gone
        self._kept: OrderedDict[K, _Entry[V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        entry = self._kept.get(key)
        if entry is None:
            return None
        if entry.used != self._puts:
            entry.used = self._puts
            self._kept.move_to_end(key)
        return entry.value

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def put(self, key: K, value: V, weight: int = 1) -> None:
        self._puts += 1
        before = self._kept.pop(key, None)
        if before is not None:
            self._drop(before)
        if weight > self._max:
            self._gone(value)
            return
        self._kept[key] = _Entry(value, weight, self._puts)
        self._weight += weight
        while self._weight > self._max:  # ends: the newest alone is light enough
            self._drop(self._kept.popitem(last=False)[1])

    def _drop(self, entry: _Entry[V]) -> None:
        self._weight -= entry.weight
        self._gone(entry.value)
