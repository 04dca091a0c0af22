"""What the settings of a simulated cluster say, read once for as long as they stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from shardlift.sim.parts import MIB, SimIndex

_ALLOCATION = "cluster.routing.allocation."
_RECOVERIES = 2
_RATE = 40 * MIB
_LOW_PERCENT, _HIGH_PERCENT = 85.0, 90.0
DEFAULT_RATE = f"{_RATE // MIB}mb"
_UNITS = {"kb": 1024, "mb": MIB, "gb": 1024 * MIB}
_KINDS = ("require", "include", "exclude")

Filters = tuple[tuple[str, Mapping[str, str]], ...]
"""For each kind of filter that is set, in their order: `kind.attribute` to values, joined by commas."""


class InForce:
    """Both layers, transient before persistent. Every allocation decider asks for each copy and node."""

    def __init__(self, persistent: Mapping[str, str], transient: Mapping[str, str]) -> None:
        self._persistent, self._transient = dict(persistent), dict(transient)
        self._values = {**persistent, **transient}

    def holds(self, persistent: Mapping[str, str], transient: Mapping[str, str]) -> bool:
        """Whether these are the settings that were read."""
        return self._persistent == persistent and self._transient == transient

    def value(self, key: str) -> str:
        """Empty for a key that is not set."""
        return self._values.get(key, "")

    @cached_property
    def filters(self) -> Filters:
        return filters_of({key: self._values[key] for key in sorted(self._values)}, _ALLOCATION)

    @cached_property
    def recovery_limits(self) -> tuple[int, int]:
        """Incoming and outgoing recoveries that a node takes at once."""
        both = self.value(f"{_ALLOCATION}node_concurrent_recoveries") or str(_RECOVERIES)
        return (
            int(self.value(f"{_ALLOCATION}node_concurrent_incoming_recoveries") or both),
            int(self.value(f"{_ALLOCATION}node_concurrent_outgoing_recoveries") or both),
        )

    @cached_property
    def recovery_rate(self) -> float:
        """Bytes a second that a node sends or takes."""
        text = self.value("indices.recovery.max_bytes_per_sec").lower()
        if text[-2:] in _UNITS:
            return float(text[:-2]) * _UNITS[text[-2:]]
        if text.endswith("b") and text[:-1].strip("0"):
            return float(text[:-1])
        return float(_RATE)

    @cached_property
    def low_percent(self) -> float:
        return self._percent("low", _LOW_PERCENT)

    @cached_property
    def high_percent(self) -> float:
        return self._percent("high", _HIGH_PERCENT)

    def _percent(self, which: str, default: float) -> float:
        text = self.value(f"{_ALLOCATION}disk.watermark.{which}")
        return float(text.rstrip("%")) if text.endswith("%") else default


def own_filters(index: SimIndex) -> Filters:
    """The filters that an index has of its own."""
    return filters_of(index.settings, "index.routing.allocation.")


def filters_of(settings: Mapping[str, str], prefix: str) -> Filters:
    """The filters below the prefix that have a value, keys in the order of the settings."""
    keys = [key for key, value in settings.items() if value and key.startswith(prefix)]
    found = []
    for kind in _KINDS if keys else ():
        wanted = {key[len(prefix) :]: settings[key] for key in keys if key.startswith(f"{prefix}{kind}.")}
        if wanted:
            found.append((kind, wanted))
    return tuple(found)
