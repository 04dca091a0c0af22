"""Allocation filters of cluster and index, after DiscoveryNodeFilters and FilterAllocationDecider of both engines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

_KINDS = ("require", "include", "exclude")


class Named(Protocol):
    """What a filter looks at. `id` is empty for a node that will have a new one."""

    name: str
    id: str
    address: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Filter:
    """All terms of one kind: `require` wants every one, `include` one of them, `exclude` none.

    `scope` is `cluster` or `index`; each term is a key such as `_name` or `zone` with its words.
    """

    scope: str
    kind: str
    terms: tuple[tuple[str, tuple[str, ...]], ...]

    def objection(self, node: Named) -> str | None:
        hits = [_hit(node, key, words, self.kind) for key, words in self.terms]
        allowed = all(hits) if self.kind == "require" else any(hits) is (self.kind == "include")
        if allowed:
            return None
        does = "matches" if self.kind == "exclude" else "does not match"
        prefix = "cluster.routing" if self.scope == "cluster" else "index.routing"
        told = " and ".join(f'{key}:"{",".join(words)}"' for key, words in self.terms)
        return f"node {does} {self.scope} setting [{prefix}.allocation.{self.kind}] filters [{told}]"

    @property
    def names_ids(self) -> bool:
        """Whether a node with a new id may be judged otherwise."""
        return any(key == "_id" for key, _ in self.terms)


def filters_of(settings: Mapping[str, str], scope: str) -> tuple[Filter, ...]:
    """From flat settings. Tiers are no attributes and have a decider of their own; empty values do not count."""
    found = []
    for kind in _KINDS:
        prefix = f"{scope}.routing.allocation.{kind}."
        terms = tuple(
            (key.removeprefix(prefix), words)
            for key, value in sorted(settings.items())
            if key.startswith(prefix)
            and not key.startswith(f"{prefix}_tier")
            and (words := tuple(word for word in map(str.strip, value.split(",")) if word))
        )
        if terms:
            found.append(Filter(scope, kind, terms))
    return tuple(found)


def _hit(node: Named, key: str, words: tuple[str, ...], kind: str) -> bool:
    if key == "_id":
        hits = [word == node.id for word in words]
    elif key in {"_ip", "_host_ip", "_publish_ip", "_host"}:
        host = node.address.rpartition(":")[0].strip("[]")
        hit = any(_like(word).fullmatch(one) is not None for word in words for one in (node.address, host))
        # The names of hosts are not observed, so a filter by such a name raises no objection: the engine is asked too.
        return hit or (key == "_host" and kind != "exclude" and any(re.search("[^0-9.:*]", word) for word in words))
    else:
        own = node.name if key in {"_name", "name"} else node.attributes.get(key)
        hits = [own is not None and _like(word).fullmatch(own) is not None for word in words]
    return all(hits) if kind == "require" else any(hits)


@lru_cache(maxsize=4096)
def _like(word: str) -> re.Pattern[str]:
    """A star stands for any characters; nothing else is special."""
    return re.compile(".*".join(map(re.escape, word.split("*"))), re.DOTALL)
