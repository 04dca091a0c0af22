"""Disk watermarks as the engines read them from their settings. Pure.

A watermark is a used share (`85%`, `0.85`) or the bytes that must stay free (`50gb`). Where a version has
`max_headroom`, a share never keeps more than that free (DiskThresholdSettings of both engines).
"""

from __future__ import annotations

import re

from shardlift.model.observation import ClusterSettings

_DISK = "cluster.routing.allocation.disk."
WATERMARK_LOW = f"{_DISK}watermark.low"
_LOW_DEFAULT = "85%"  # of both engines, all versions
_POWERS = ("", "k", "m", "g", "t", "p")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)


def size_bytes(text: str) -> int | None:
    """`50gb`, `1.5t` or `1024` in bytes (units are powers of 1024); None for anything else, -1 too."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    return int(float(match[1]) * 1024 ** _POWERS.index(match[2].lower()))


def thresholds_enabled(settings: ClusterSettings) -> bool:
    """Whether the engine heeds watermarks at all."""
    return (settings.effective(f"{_DISK}threshold_enabled") or "true").strip().lower() != "false"


def watermark_low(settings: ClusterSettings) -> str:
    """The low watermark in force, as text."""
    return (settings.effective(WATERMARK_LOW) or _LOW_DEFAULT).strip()


def free_at_low(settings: ClusterSettings, total_bytes: int) -> int | None:
    """Bytes that are free on a disk of that size at the low watermark; None when its value cannot be read."""
    share = _share(watermark_low(settings))
    if share is None:
        return size_bytes(watermark_low(settings))
    free = total_bytes - int(total_bytes * share)
    headroom = _headroom(settings)
    return free if headroom is None else min(free, headroom)


def _headroom(settings: ClusterSettings) -> int | None:
    """As set, or, as long as nobody has set the watermark itself, by default."""
    key, set_by_hand = f"{WATERMARK_LOW}.max_headroom", {**settings.persistent, **settings.transient}
    text = set_by_hand.get(key) or ("" if WATERMARK_LOW in set_by_hand else settings.defaults.get(key, ""))
    return size_bytes(text)


def _share(text: str) -> float | None:
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None
