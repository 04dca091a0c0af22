"""How a task may go on from node to node: a canary first, gates between nodes, maintenance windows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAYS_WORD = re.compile(r"daily|[a-z]{3}(-[a-z]{3})?(,[a-z]{3}(-[a-z]{3})?)*")
_TIMES = re.compile(r"(\d{2}):(\d{2})-(\d{2}):(\d{2})")
_OFFSET = re.compile(r"([+-])(\d{2}):(\d{2})")
_MIDNIGHT_MIN = 24 * 60


class OnBreach(StrEnum):
    """What a breached gate does: `wait` until it holds again (within a bound, then pause), `pause`, or `fail`."""

    WAIT = "wait"
    PAUSE = "pause"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits that every node of the cluster has to keep before the next one is taken; None does not limit.

    Latencies are means per query and per indexing operation of one shard, between two readings. `rejections` counts
    requests that a node's search and write queues refused between them. `heap_percent` and `disk_percent` are used.
    """

    search_latency_ms: float | None = None
    write_latency_ms: float | None = None
    rejections: int | None = None
    heap_percent: float | None = None
    disk_percent: float | None = None
    on_breach: OnBreach = OnBreach.WAIT
    wait_timeout_s: float = 600

    @property
    def limits(self) -> dict[str, float]:
        """Those that are set, by name."""
        named: dict[str, float | None] = {
            "search_latency_ms": self.search_latency_ms,
            "write_latency_ms": self.write_latency_ms,
            "rejections": self.rejections,
            "heap_percent": self.heap_percent,
            "disk_percent": self.disk_percent,
        }
        return {name: limit for name, limit in named.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week in which a node may be begun: on `days` (0 is Monday) from `begin_min` to `end_min`.

    Minutes of the day, in `zone`: `UTC`, an offset such as `+02:00`, or an IANA name. A window whose end is not after
    its begin ends on the next day.
    """

    days: frozenset[int]
    begin_min: int
    end_min: int
    zone: str = "UTC"

    @classmethod
    def parse(cls, text: str) -> Window:
        """`mon-fri 01:00-05:00 Europe/Berlin`; without days every day, without a zone UTC. Raises ValueError."""
        words = text.split()
        days = words.pop(0).lower() if words and not _TIMES.fullmatch(words[0]) else "daily"
        times = _TIMES.fullmatch(words.pop(0)) if words else None
        if times is None:
            raise ValueError("a window needs its times as HH:MM-HH:MM")
        zone = words.pop(0) if words else "UTC"
        if words:
            raise ValueError(f"{' '.join(words)!r} stands after the zone")
        _zone(zone)
        begin, end = _minute(times[1], times[2]), _minute(times[3], times[4])
        return cls(_days(days), begin % _MIDNIGHT_MIN, end, zone)

    def __str__(self) -> str:
        days = "daily" if len(self.days) == len(_DAYS) else ",".join(_DAYS[day] for day in sorted(self.days))
        return f"{days} {_clock(self.begin_min)}-{_clock(self.end_min)} {self.zone}"

    def spans(self, now: datetime) -> list[tuple[datetime, datetime]]:
        """Begin and end, in UTC, of each time that it is open from the day before `now` to two weeks after.

        Two, because a window of an hour that the clock is put forward over is not open in that week.
        """
        zone = _zone(self.zone)
        today = now.astimezone(zone).date()
        found = []
        for ahead in range(-1, 2 * len(_DAYS) + 1):
            day = today + timedelta(days=ahead)
            if day.weekday() in self.days:
                midnight = datetime.combine(day, time(), zone)
                length_min = (self.end_min - self.begin_min) % _MIDNIGHT_MIN or _MIDNIGHT_MIN
                # Added to the wall clock's time, so that a window begins and ends by it also when it is put forward.
                begin = midnight + timedelta(minutes=self.begin_min)
                found.append((begin.astimezone(UTC), (begin + timedelta(minutes=length_min)).astimezone(UTC)))
        return found


@dataclass(frozen=True, slots=True)
class Policy:
    """`canary`: the first node comes back without shards and waits for somebody's word. No windows: always open."""

    canary: bool = False
    gates: Gates | None = None
    windows: tuple[Window, ...] = ()


def open_at(windows: Iterable[Window], now: datetime) -> bool:
    """Whether a node may be begun at that moment."""
    windows = tuple(windows)
    return not windows or any(begin <= now < end for window in windows for begin, end in window.spans(now))


def next_opening(windows: Iterable[Window], now: datetime) -> datetime:
    """The next moment, in UTC, at which one is open: `now` itself when one is, or when there are none."""
    windows = tuple(windows)
    if open_at(windows, now):
        return now
    return min(begin for window in windows for begin, end in window.spans(now) if now < begin < end)


def _days(word: str) -> frozenset[int]:
    if not _DAYS_WORD.fullmatch(word):
        raise ValueError(f"{word!r} names no days")
    found: set[int] = set()
    for part in [] if word == "daily" else word.split(","):
        unknown = [day for day in part.split("-") if day not in _DAYS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no day")
        ends = [_DAYS.index(day) for day in part.split("-")]
        # From Friday to Monday goes over the end of the week.
        found |= {(ends[0] + step) % len(_DAYS) for step in range((ends[-1] - ends[0]) % len(_DAYS) + 1)}
    return frozenset(found or range(len(_DAYS)))


def _minute(hours: str, minutes: str) -> int:
    at = int(hours) * 60 + int(minutes)
    if int(minutes) >= 60 or at > _MIDNIGHT_MIN:  # noqa: PLR2004  (minutes in an hour)
        raise ValueError(f"{hours}:{minutes} is no time of the day")
    return at


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _zone(name: str) -> tzinfo:
    if name.upper() in {"UTC", "Z"}:
        return UTC
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        size = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(-size if offset[1] == "-" else size)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # an unknown name, a folder's name, or one that leads out of the folder
        raise ValueError(f"{name!r} is no time zone") from None
