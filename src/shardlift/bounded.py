"""A memory of what was used last, bounded by weight."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """Keeps what was asked for last, together at most `weight_max` heavy; what is heavier by itself is not kept."""

    def __init__(self, weight_max: int) -> None:
        self._max = weight_max
        self._weight = 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def put(self, key: K, value: V, weight: int = 1) -> None:
        _, before = self._kept.pop(key, (None, 0))
        self._weight -= before
        if weight > self._max:
            return
        self._kept[key] = (value, weight)
        self._weight += weight
        while self._weight > self._max:  # ends: the newest alone is light enough
            _, (_, gone) = self._kept.popitem(last=False)
            self._weight -= gone
