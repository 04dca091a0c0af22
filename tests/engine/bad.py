"""Ways to make a good cluster bad by its REST API alone, each with the rule that must see it and the way back."""

from __future__ import annotations

from dataclasses import dataclass, field

from shardlift.model import Strategy

ALLOCATION = "cluster.routing.allocation"
PIN = "index.routing.allocation.require._name"
_DRAIN, _IN_PLACE = Strategy.DRAIN, Strategy.IN_PLACE

Ask = tuple[str, str, object]


@dataclass(frozen=True)
class Bad:
    """A way to make a good cluster bad by its REST API.

    `evidence`: what the finding must name. It is mended by the request that the remedy spells out, or, where that
    leaves it to the operator what exactly to do, by `mend`; `words` of it are in the remedy. `also`: other rules that
    have the same reason to block.
    """

    rule: str
    strategy: Strategy
    spoil: tuple[Ask, ...]
    evidence: str
    mend: tuple[Ask, ...] = ()
    words: str = ""
    also: frozenset[str] = field(default=frozenset())


def persistent(**values: object) -> Ask:
    """Settings of the cluster; two underscores stand for a dot."""
    return ("PUT", "/_cluster/settings", {"persistent": {_dotted(key): value for key, value in values.items()}})


def index_settings(index: str, settings: dict[str, object]) -> Ask:
    return ("PUT", f"/{index}/_settings", settings)


def new_index(name: str, *, shards: int = 1, replicas: int = 0, **settings: object) -> Ask:
    more = {_dotted(key): value for key, value in settings.items()}
    body = {"settings": {"number_of_shards": shards, "number_of_replicas": replicas, **more}}
    return ("PUT", f"/{name}?wait_for_active_shards=all", body)


def _dotted(key: str) -> str:
    return key.replace("__", ".")


def bad_by_rest(node: str, free_bytes: int) -> tuple[Bad, ...]:
    """`node`: one that is not the elected master; `free_bytes`: on its disk."""
    drop: Ask = ("DELETE", "/bad", None)
    forced = f"{ALLOCATION}.awareness.force.zone.values"
    watermark = f"{ALLOCATION}.disk.watermark"
    marks: dict[str, object] = {f"{watermark}.low": f"{free_bytes + 2**36}b", f"{watermark}.high": "1mb"}
    marks[f"{watermark}.flood_stage"] = "1kb"
    return (
        Bad("last_started_copy", _IN_PLACE, spoil=(new_index("bad"),), evidence="bad[0]"),
        Bad(
            "copies_fit",
            _DRAIN,
            spoil=(index_settings("bad", {"number_of_replicas": 2}),),
            evidence="number_of_replicas is 2, data nodes 3",
        ),
        Bad(
            "no_leftover_excludes",
            _IN_PLACE,
            spoil=(persistent(**{f"{ALLOCATION}.exclude._name": node}),),
            evidence=f"{ALLOCATION}.exclude._name holds {node}",
        ),
        Bad(
            "allocation_enabled",
            _IN_PLACE,
            spoil=(persistent(**{f"{ALLOCATION}.enable": "none"}),),
            evidence=f"{ALLOCATION}.enable is 'none'",
        ),
        Bad(
            "voting_exclusions_clean",
            _IN_PLACE,
            spoil=(("POST", f"/_cluster/voting_config_exclusions?node_names={node}", None),),
            evidence=f"excluded: {node}",
        ),
        Bad(
            "zones_present",
            _DRAIN,
            spoil=(persistent(**{f"{ALLOCATION}.awareness.attributes": "zone", forced: "a,b,c,d"}),),
            evidence=f"{forced} is a,b,c,d",
        ),
        Bad(
            "disk_watermarks",
            _DRAIN,
            spoil=(persistent(**marks),),
            evidence=f"{watermark}.low is {free_bytes + 2**36}b",
            mend=(persistent(**dict.fromkeys(marks)),),
            words=f"raise {watermark}.low and the watermarks above it (PUT _cluster/settings)",
            also=frozenset({"drain_can_end"}),
        ),
        Bad("drain_can_end", _DRAIN, spoil=(drop, new_index("bad", **{PIN: node})), evidence="filter"),
        Bad(
            "drain_can_end",
            _DRAIN,
            spoil=(drop, new_index("bad", shards=3, index__routing__allocation__total_shards_per_node=1)),
            evidence="shards_limit",
        ),
    )
