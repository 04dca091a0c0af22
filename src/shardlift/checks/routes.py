"""The way from one release to another in several hops, each of which `hop_allowed` permits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from shardlift.checks.versions import hop_allowed, oldest_index
from shardlift.model import EngineKind, Image, IndexSeen, Leg, Version

Release = tuple[EngineKind, Version]


def find_route(start: Release, target: Image, images: Iterable[Image], via: Sequence[Image] = ()) -> tuple[Image, ...]:
    """The images to go to one after the other, `target` last; empty when there is no way.

    As few hops as there can be, through the newest patch of each line. Of several such ways the one that is at the
    newest release after its first hop, then after its second, and so on. `via`: images that it must pass, in order.
    """
    stops = _newest_of_lines(images)
    at, way = start, list[Image]()
    for goal in (*via, target):
        part = _part(at, goal, stops)
        if not part:
            return ()
        way += part
        at = (goal.engine, goal.version)
    return tuple(way)


def _part(start: Release, goal: Image, stops: Sequence[Image]) -> tuple[Image, ...]:
    """Breadth first over the stops. Each hop leads to a newer release, so nothing is met twice on a way."""
    ways: dict[Release, tuple[Image, ...]] = {start: ()}
    met = {start}
    while ways:
        ending = [way for release, way in ways.items() if _allowed(release, goal)]
        if ending:
            return (*max(ending, key=_newest_first), goal)
        onward: dict[Release, tuple[Image, ...]] = {}
        for release, way in ways.items():
            for stop in stops:
                reached = (stop.engine, stop.version)
                if reached not in met and _allowed(release, stop):
                    longer = (*way, stop)
                    onward[reached] = max(longer, onward.get(reached, longer), key=_newest_first)
        met |= onward.keys()
        ways = onward
    return ()


def _newest_first(way: tuple[Image, ...]) -> tuple[tuple[bool, Version], ...]:
    # OpenSearch follows Elasticsearch, though its numbers begin anew.
    return tuple((image.engine is EngineKind.OPENSEARCH, image.version) for image in way)


def _allowed(release: Release, image: Image) -> bool:
    return release != (image.engine, image.version) and hop_allowed(*release, image.engine, image.version) is None


def _newest_of_lines(images: Iterable[Image]) -> tuple[Image, ...]:
    """Of each line (engine, major, minor) the newest release, and of several images of that the most recommended."""
    lines: dict[tuple[EngineKind, int, int], Image] = {}
    for image in sorted(images, key=lambda image: (image.version, image.priority)):
        lines[image.engine, image.version.major, image.version.minor] = image
    return tuple(lines.values())


def legs_of(start: Release, way: Sequence[Image], indices: Iterable[IndexSeen]) -> tuple[Leg, ...]:
    """The hops of a way, each with the indices that must be made again right before it.

    As late as it can be: an index made anew on a newer release is good for more hops. One whose creator is not known is
    named at the first hop, as too old.
    """
    releases = [start, *((image.engine, image.version) for image in way)]
    made: dict[str, Release | None] = {
        index.name: (index.created_by, index.created_on) if index.created_by and index.created_on else None
        for index in indices
    }
    legs = []
    for (source, _), image in zip(pairwise(releases), way, strict=True):
        closed = tuple(sorted(name for name, origin in made.items() if not _opens(image, origin)))
        made |= dict.fromkeys(closed, source)
        legs.append(Leg(*source, image, closed))
    return tuple(legs)


def _opens(image: Image, origin: Release | None) -> bool:
    return origin is not None and oldest_index(image.engine, *origin, image.version) is None
