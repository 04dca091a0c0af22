"""Rules about settings that another operation, or an older version, has left in the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from shardlift.checks.subject import Subject, blocks, put_settings, some, warns
from shardlift.model import ClusterSettings, EngineKind, Finding, NodeSeen

_ENABLE = "cluster.routing.allocation.enable"
_EXCLUDE = "cluster.routing.allocation.exclude."
# Settings, by the beginning of their keys, that could be set before this major version and are unknown to it. Seen on
# real clusters; there may be more, which a node then archives.
_GONE_WITH: dict[tuple[EngineKind, int], tuple[str, ...]] = {
    (EngineKind.OPENSEARCH, 2): ("discovery.zen.publish_timeout", "indices.breaker.accounting.limit", "search.remote."),
    (EngineKind.OPENSEARCH, 3): (
        "cluster.service.slow_master_task_logging_threshold",
        "compatibility.override_main_response_version",
        "wlm.query_group.",
    ),
}


@dataclass(frozen=True, slots=True)
class ForeignExclude:
    """Words of one exclusion in force that we have not set, the members that they hit, and how to remove them."""

    key: str
    words: list[str]
    hit: frozenset[str]
    removal: str


def foreign_excludes(subject: Subject) -> Iterator[ForeignExclude]:
    """Every `cluster.routing.allocation.exclude.*` that names members and is not ours."""
    settings = subject.seen.settings
    for key in sorted({*settings.persistent, *settings.transient, *settings.defaults}):
        if not key.startswith(_EXCLUDE):
            continue
        words = [word for word in map(str.strip, (settings.effective(key) or "").split(",")) if word]
        foreign = {word: _hit(key.removeprefix(_EXCLUDE), word, subject) for word in words}
        foreign = {word: hit for word, hit in foreign.items() if hit and word not in subject.own_tokens}
        if foreign:
            layer = "transient" if key in settings.transient else "persistent"
            left: str | None = ",".join(word for word in words if word not in foreign)
            if not left and key in settings.layer(layer):
                left = None  # one from a configuration file can only be outdone by an empty one
            yield ForeignExclude(
                key, list(foreign), frozenset().union(*foreign.values()), put_settings(layer, key, left)
            )


def _hit(attribute: str, word: str, subject: Subject) -> frozenset[str]:
    """The members that an exclusion by `attribute` with this word means; stars count everywhere but in ids."""
    if "*" not in word and attribute == "_name":
        return frozenset({word} & subject.seen.members.keys())
    stars = attribute != "_id"
    return frozenset(
        node.name
        for node in subject.seen.nodes
        if any(fnmatchcase(value, word) if stars else value == word for value in _values(node, attribute))
    )


def _values(node: NodeSeen, attribute: str) -> set[str]:
    if attribute == "_name":
        return {node.name}
    if attribute == "_id":
        return {node.id}
    if attribute.startswith("_"):  # _ip, _host, _publish_ip, _host_ip
        return {node.address, node.address.rpartition(":")[0]}
    return {node.attributes[attribute]} if attribute in node.attributes else set()


def no_leftover_excludes(subject: Subject) -> Iterator[Finding]:
    """No allocation exclusion names a member: it holds back shards the plan counts on placing there."""
    for exclude in foreign_excludes(subject):
        yield blocks(
            "no_leftover_excludes",
            subject.cluster.name,
            reason="an allocation exclusion that is not ours names members of the cluster",
            evidence=f"{exclude.key} holds {some(exclude.words)}",
            remedy=f"once the operation that set it is over, {exclude.removal}",
        )


def voting_exclusions_clean(subject: Subject) -> Iterator[Finding]:
    """No voting exclusion is left over: with one, fewer nodes vote than it looks, and quorum is thinner."""
    voting = subject.seen.voting
    if voting is not None and voting.excluded_names - subject.own_tokens:
        yield blocks(
            "voting_exclusions_clean",
            subject.cluster.name,
            reason="voting exclusions of another operation are in force",
            evidence=f"excluded: {some(sorted(voting.excluded_names - subject.own_tokens))}",
            remedy="once that operation is over, DELETE _cluster/voting_config_exclusions?wait_for_removal=false",
        )


def allocation_enabled(subject: Subject) -> Iterator[Finding]:
    """Shard allocation is on; with it off nothing would leave a drained node or come back to a restarted one."""
    settings = subject.seen.settings
    value = settings.effective(_ENABLE)
    if value is not None and value.lower() != "all":
        if _ENABLE in settings.transient:
            remedy = put_settings("transient", _ENABLE, None)
        else:
            # One from a configuration file can only be outdone, not removed.
            remedy = put_settings("persistent", _ENABLE, None if _ENABLE in settings.persistent else "all")
        yield blocks(
            "allocation_enabled",
            subject.cluster.name,
            reason="shard allocation is restricted",
            evidence=f"{_ENABLE} is {value!r}",
            remedy=remedy,
        )


def no_archived_settings(subject: Subject) -> Iterator[Finding]:
    """No setting is archived: with one, the engine refuses every change of settings, in mid-upgrade too.

    A new major version archives what it does not know as soon as one of its nodes is master. Of settings that are sure
    to be archived it warns beforehand.
    """
    settings = subject.seen.settings
    archived = settings.archived
    if archived:
        yield blocks(
            "no_archived_settings",
            subject.cluster.name,
            reason="the cluster keeps settings that it does not know, and refuses every change of settings meanwhile",
            evidence=some([f"{key}={settings.effective(key)}" for key in archived]),
            remedy=archived_removal(settings),
        )
    prefixes = tuple(
        prefix
        for (engine, major), gone in _GONE_WITH.items()
        if engine is subject.image.engine and major <= subject.image.version.major
        for prefix in gone
    )
    doomed = sorted(key for key in {*settings.persistent, *settings.transient} if key.startswith(prefixes))
    if doomed:
        removal = {
            name: {key: None for key in doomed if key in settings.layer(name)} for name in _layers(settings, doomed)
        }
        yield warns(
            "no_archived_settings",
            subject.cluster.name,
            reason="the target does not know these settings: once a new node is master, the cluster refuses every "
            "change of settings, until they are removed",
            evidence=some([f"{key}={settings.effective(key)}" for key in doomed]),
            remedy=f"before the upgrade, PUT _cluster/settings {json.dumps(removal)}",
        )


def archived_removal(settings: ClusterSettings) -> str:
    """The request that removes what is archived."""
    removal = {name: {"archived.*": None} for name in _layers(settings, settings.archived)}
    return f"note their values (GET _cluster/settings), then PUT _cluster/settings {json.dumps(removal)}"


def _layers(settings: ClusterSettings, keys: Iterable[str]) -> list[str]:
    """The layers that hold any of the keys."""
    return [name for name in ("persistent", "transient") if not settings.layer(name).keys().isdisjoint(keys)]
