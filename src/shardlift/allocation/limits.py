"""Cluster settings that bound what a node may take, as numbers."""

from __future__ import annotations

import re

from shardlift.model import ClusterSettings

_PREFIX = "cluster.routing.allocation."
_LOW = f"{_PREFIX}disk.watermark.low"
_LOW_DEFAULT = "85%"  # of both engines, all versions
_POWERS = ("", "k", "m", "g", "t", "p")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)


def size_bytes(text: str) -> int | None:
    """`50gb`, `1.5t` or `1024` in bytes (units are powers of 1024); None for anything else, -1 too."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    return int(float(match[1]) * 1024 ** _POWERS.index(match[2].lower()))


def most_used_bytes(settings: ClusterSettings, total_bytes: int | None) -> int | None:
    """How full a disk may be below the low watermark in force; None when nothing bounds it or its size is not known.

    A watermark is a used share (`85%`, `0.85`) or the bytes that must stay free (`50gb`). Where a version has
    `max_headroom`, a share never keeps more than that free.
    """
    if total_bytes is None or (settings.effective(f"{_PREFIX}disk.threshold_enabled") or "true") == "false":
        return None
    text = (settings.effective(_LOW) or _LOW_DEFAULT).strip()
    share = _share(text)
    if share is None:
        free = size_bytes(text)
        return None if free is None else total_bytes - free
    free = total_bytes - int(total_bytes * share)
    headroom = _headroom(settings)
    return total_bytes - (free if headroom is None else min(free, headroom))


def _headroom(settings: ClusterSettings) -> int | None:
    """As set, or, as long as nobody has set the watermark itself, by default."""
    key, set_by_hand = f"{_LOW}.max_headroom", {**settings.persistent, **settings.transient}
    text = set_by_hand.get(key) or ("" if _LOW in set_by_hand else settings.defaults.get(key, ""))
    return size_bytes(text)


def _share(text: str) -> float | None:
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def whole(text: str | None) -> int:
    """A limit as a whole number; 0 stands for none, as the engines' -1 does."""
    try:
        return max(int(text or "0"), 0)
    except ValueError:
        return 0


def words(text: str | None) -> tuple[str, ...]:
    """The items of a list setting."""
    return tuple(word for word in map(str.strip, (text or "").split(",")) if word)
