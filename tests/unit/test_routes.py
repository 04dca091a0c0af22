"""The way from one release to another: found over the shipped catalogue and over drawn ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardlift.checks import find_route, hop_allowed, legs_of, oldest_index
from shardlift.images import Catalogue
from shardlift.model import EngineKind, Image, IndexSeen, Version
from shardlift.sim import sim_image
from tests.observations import index

ES, OS = EngineKind.ELASTICSEARCH, EngineKind.OPENSEARCH
Release = tuple[EngineKind, Version]

SHIPPED = Catalogue(Path("/nowhere")).all()


def release(text: str) -> Release:
    engine, version = text.split(":")
    return EngineKind(engine), Version.parse(version)


def shipped(reference: str) -> Image:
    return next(image for image in SHIPPED if image.reference == reference)


@pytest.mark.parametrize(
    ("start", "target", "via", "way"),
    [
        # Directly, where that is allowed, and to exactly the image that was asked for.
        ("opensearch:2.19.4", "opensearch:3.4.0", [], ["opensearch:3.4.0"]),
        ("opensearch:2.19.4", "opensearch:2.19.5", [], ["opensearch:2.19.5"]),
        # Through the newest patch of each line.
        ("opensearch:1.3.20", "opensearch:3.4.0", [], ["opensearch:2.19.5", "opensearch:3.4.0"]),
        ("elasticsearch:7.10.2", "elasticsearch:8.19.0", [], ["elasticsearch:7.17.29", "elasticsearch:8.19.0"]),
        # As few hops as there can be: not by 7.10 and 1.3, though each of those hops is allowed.
        (
            "elasticsearch:6.8.23",
            "opensearch:3.4.0",
            [],
            ["opensearch:1.3.20", "opensearch:2.19.5", "opensearch:3.4.0"],
        ),
        (
            "elasticsearch:6.8.23",
            "opensearch:3.4.0",
            ["elasticsearch:7.10.2", "opensearch:1.3.20", "opensearch:2.19.4"],
            ["elasticsearch:7.10.2", "opensearch:1.3.20", "opensearch:2.19.4", "opensearch:3.4.0"],
        ),
        # None leads back, out of OpenSearch, or from 7.17 to it.
        ("opensearch:3.4.0", "opensearch:2.19.5", [], []),
        ("opensearch:2.19.4", "elasticsearch:8.19.0", [], []),
        ("elasticsearch:7.17.29", "opensearch:3.4.0", [], []),
        ("opensearch:1.3.20", "opensearch:3.4.0", ["elasticsearch:7.10.2"], []),
        ("opensearch:2.19.4", "opensearch:2.19.4", [], []),
    ],
)
def test_routes_over_the_shipped_catalogue(start: str, target: str, via: list[str], way: list[str]) -> None:
    found = find_route(release(start), shipped(target), SHIPPED, [shipped(one) for one in via])
    assert [image.reference for image in found] == way


def test_of_two_images_of_a_release_the_more_recommended_is_passed() -> None:
    other = replace(shipped("opensearch:2.19.5"), id="other", priority=1000)
    way = find_route(release("opensearch:1.3.20"), shipped("opensearch:3.4.0"), (*SHIPPED, other))
    assert [image.id for image in way] == ["other", shipped("opensearch:3.4.0").id]


def aged(name: str, made: str | None) -> IndexSeen:
    by, on = release(made) if made else (None, None)
    return index(name, created_by=by, created_on=on)


def test_too_old_indices_are_named_at_the_hop_before_which_they_must_be_made_again() -> None:
    stops = ["elasticsearch:7.10.2", "opensearch:1.3.20", "opensearch:2.19.4", "opensearch:3.4.0"]
    way = [shipped(one) for one in stops]
    old = [
        aged("from-6.8", "elasticsearch:6.8.23"),
        aged("from-7.10", "elasticsearch:7.10.2"),
    ]
    legs = legs_of(release("elasticsearch:6.8.23"), way, old)
    assert [(leg.source, leg.image.reference, leg.rebuild) for leg in legs] == [
        ("elasticsearch:6.8.23", stops[0], ()),
        ("elasticsearch:7.10.2", stops[1], ()),
        # 2.x opens nothing of 6.x; what 1.3 made anew is in turn too old for 3.x.
        ("opensearch:1.3.20", stops[2], ("from-6.8",)),
        ("opensearch:2.19.4", stops[3], ("from-6.8", "from-7.10")),
    ]


def test_an_index_of_unknown_origin_is_named_at_once() -> None:
    legs = legs_of(release("opensearch:1.3.20"), [shipped("opensearch:2.19.4")], [aged("who-knows", None)])
    assert legs[0].rebuild == ("who-knows",)


_LINES = [
    *((ES, major, minor) for major, minor in ((6, 7), (6, 8), (7, 0), (7, 10), (7, 17), (8, 0), (8, 18), (8, 19))),
    *((ES, 9, minor) for minor in (0, 1)),
    *((OS, major, minor) for major, minor in ((1, 0), (1, 3), (2, 0), (2, 4), (2, 19), (3, 0), (3, 4), (4, 0))),
]
releases = st.tuples(st.sampled_from(_LINES), st.integers(0, 2)).map(
    lambda drawn: (drawn[0][0], Version(drawn[0][1], drawn[0][2], drawn[1]))
)
catalogues = st.lists(releases, max_size=12, unique=True).map(
    lambda drawn: tuple(sim_image(str(version), engine) for engine, version in drawn)
)


def hops(start: Release, goal: Image, images: tuple[Image, ...]) -> int | None:
    """The least number of hops, by growing the set of what can be reached: another way than the code's."""
    reached = {start}
    for count in range(1, len(images) + 2):
        if any(_can(one, goal) for one in reached):
            return count
        reached |= {(to.engine, to.version) for to in images for one in reached if _can(one, to)}
    return None


def _can(one: Release, to: Image) -> bool:
    return one != (to.engine, to.version) and hop_allowed(*one, to.engine, to.version) is None


@settings(max_examples=100)
@given(start=releases, goal=releases, images=catalogues)
def test_each_hop_is_allowed_and_there_is_no_shorter_way(
    start: Release, goal: Release, images: tuple[Image, ...]
) -> None:
    target = sim_image(str(goal[1]), goal[0])
    way = find_route(start, target, images)
    # Older patches of a line are no stops: what they could do, the newest can, and it goes on at least as far.
    assert (len(way) or None) == hops(start, target, images)
    if way:
        assert way[-1] is target
        at = [start, *((image.engine, image.version) for image in way)]
        assert all(hop_allowed(*one, *two) is None for one, two in pairwise(at))
        assert set(way[:-1]) <= set(images)
        lines = [(image.engine, image.version.major, image.version.minor) for image in way[:-1]]
        for line, image in zip(lines, way[:-1], strict=True):
            same = [one for one in images if (one.engine, one.version.major, one.version.minor) == line]
            assert image.version == max(one.version for one in same)


@settings(max_examples=100)
@given(start=releases, goal=releases, images=catalogues, origins=st.lists(releases, max_size=4))
def test_with_its_rebuilds_a_route_opens_every_index_at_every_hop(
    start: Release, goal: Release, images: tuple[Image, ...], origins: list[Release]
) -> None:
    way = find_route(start, sim_image(str(goal[1]), goal[0]), images)
    made = {f"index-{at}": origin for at, origin in enumerate(origins)}
    seen = [index(name, created_by=engine, created_on=version) for name, (engine, version) in made.items()]
    for leg in legs_of(start, way, seen):
        for name, (engine, version) in made.items():
            # Only what is too old is named, and what is made again there is young enough.
            opens = oldest_index(leg.image.engine, engine, version, leg.image.version) is None
            assert opens is (name not in leg.rebuild)
        made |= dict.fromkeys(leg.rebuild, (leg.engine, leg.version))
        for engine, version in made.values():
            assert oldest_index(leg.image.engine, engine, version, leg.image.version) is None
