"""Cluster settings that bound what a node may take, as numbers."""

from __future__ import annotations

from shardlift.model import ClusterSettings, free_at_low, thresholds_enabled


def most_used_bytes(settings: ClusterSettings, total_bytes: int | None) -> int | None:
    """How full a disk may be below the low watermark in force; None when nothing bounds it or its size is not known."""
    if total_bytes is None or not thresholds_enabled(settings):
        return None
    free = free_at_low(settings, total_bytes)
    return None if free is None else total_bytes - free


def whole(text: str | None) -> int:
    """A limit as a whole number; 0 stands for none, as the engines' -1 does."""
    try:
        return max(int(text or "0"), 0)
    except ValueError:
        return 0


def words(text: str | None) -> tuple[str, ...]:
    """The items of a list setting."""
    return tuple(word for word in map(str.strip, (text or "").split(",")) if word)
