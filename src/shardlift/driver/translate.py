"""Carrying a node's yml to another version: settings that were renamed or removed on the way.

The file is text of its owner. Only the entries that must change are rewritten; all else stays as it is, comments too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from shardlift.driver.renames import CHANGES, Change
from shardlift.model import EngineKind, Version

_ENTRY = re.compile(r"(?P<indent>\s*)(?P<key>[\w.*-]+)\s*:(?:\s+(?P<value>.*))?$")


@dataclass(frozen=True, slots=True)
class Release:
    """The engine and version that a configuration is for; `secured` when its archive brings X-Pack's security."""

    engine: EngineKind
    version: Version
    secured: bool = False

    @property
    def is_opensearch(self) -> bool:
        return self.engine is EngineKind.OPENSEARCH

    def reaches(self, elasticsearch: str, opensearch: str) -> bool:
        return self.version >= Version.parse(opensearch if self.is_opensearch else elasticsearch)

    def __str__(self) -> str:
        return f"{'OpenSearch' if self.is_opensearch else 'Elasticsearch'} {self.version}"


_ROLE_FLAGS = ("master", "data", "ingest")
_FOREIGN_ROLES = frozenset({"ml", "transform", "voting_only"})


def role_words(roles: tuple[str, ...], release: Release) -> tuple[str, ...]:
    """The roles in the words of this release: `cluster_manager` from OpenSearch 2.0 on, `master` elsewhere."""
    manager = "cluster_manager" if release.is_opensearch and release.version.major >= 2 else "master"  # noqa: PLR2004
    words: list[str] = []
    for role in roles:
        word = manager if role in ("master", "cluster_manager") else role
        if release.is_opensearch:
            if word in _FOREIGN_ROLES:
                continue
            word = "data" if word.startswith("data_") else word
        if word not in words:
            words.append(word)
    return tuple(words)


def has_role_list(release: Release) -> bool:
    """Whether `node.roles` exists; before it there was one boolean per role."""
    return release.reaches("7.9.0", "1.0.0")


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines that belong together. `entries` are flat keys with their values, None when the lines hold no setting or a
    form that we do not read."""

    lines: tuple[str, ...]
    entries: Mapping[str, object] | None = None


def translate(text: str, target: Release) -> tuple[str, tuple[str, ...]]:
    """The yml for the target release, and one line per change. A yml that fits already comes back as it was."""
    notes: list[str] = []
    out: list[str] = []
    flags: dict[str, bool] = {}
    present: set[str] = set()
    for block in _blocks(text):
        changed = _changed(block.entries, target, notes, flags)
        present.update(block.entries or {})
        out.extend(
            block.lines if changed is None else (f"{key}: {json.dumps(value)}" for key, value in changed.items())
        )
    if flags and "node.roles" not in present:
        out.extend(_roles_from_flags(flags, target, notes))
    if target.secured and "xpack.security.enabled" not in present:
        out.append("xpack.security.enabled: false")
        notes.append(f"xpack.security.enabled: false was added: {target} would otherwise demand TLS between nodes")
    return "\n".join(out).rstrip("\n") + "\n", tuple(notes)


def _changed(
    entries: Mapping[str, object] | None, target: Release, notes: list[str], flags: dict[str, bool]
) -> dict[str, object] | None:
    """The entries rewritten, None when they can stay."""
    if entries is None:
        return None
    out: dict[str, object] = {}
    for key, value in entries.items():
        flag = key.removeprefix("node.")
        if has_role_list(target) and key.startswith("node.") and flag in _ROLE_FLAGS:
            flags[flag] = str(value).lower() == "true"
            continue
        change = next((change for change in CHANGES if _applies(change, key, target)), None)
        if change is not None and change.new is None:
            notes.append(f"{key} was dropped for {target}: {change.why}")
            continue
        new_key = key if change is None or change.new is None else change.new + key.removeprefix(change.old)
        if new_key != key:
            notes.append(f"{key} is now {new_key}")
        new_value = value
        if key == "node.roles":
            words = tuple(str(word) for word in (value if isinstance(value, list) else str(value).split(",")))
            translated = role_words(tuple(word.strip() for word in words if word.strip()), target)
            if list(translated) != value:
                notes.append(f"node.roles is now {', '.join(translated) or 'empty'}")
                new_value = list(translated)
        out[new_key] = new_value
    return None if out == entries else out


def _applies(change: Change, key: str, target: Release) -> bool:
    matches = key.startswith(change.old) if change.old.endswith(".") else key == change.old
    return matches and target.reaches(change.elasticsearch, change.opensearch)


def _roles_from_flags(flags: dict[str, bool], target: Release, notes: list[str]) -> Iterator[str]:
    """`node.roles` in place of the booleans, each of which was true unless it was given."""
    roles = tuple(role for role in _ROLE_FLAGS if flags.get(role, True))
    named = ", ".join(f"node.{flag}" for flag in flags)
    if len(roles) == len(_ROLE_FLAGS):
        notes.append(f"{named} was dropped for {target}: all roles are the default")
        return
    words = role_words(roles, target)
    notes.append(f"{named} became node.roles: {', '.join(words) or 'none'}")
    yield f"node.roles: {json.dumps(list(words))}"


def _blocks(text: str) -> Iterator[_Block]:
    """The text cut at its top-level entries: an entry takes the indented and `-` lines that follow it."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        end = at + 1
        if _ENTRY.fullmatch(lines[at]) and not lines[at][0].isspace():
            while end < len(lines) and re.match(r"\s+\S|-(\s|$)", lines[end]):
                end += 1
        chunk = tuple(lines[at:end])
        yield _Block(chunk, _read(chunk))
        at = end


def _read(lines: tuple[str, ...]) -> dict[str, object] | None:
    """Flat settings of one block: `a: 1`, `a: [x, y]`, lists by dashes, nested maps by indentation."""
    path: list[tuple[int, str]] = []
    out: dict[str, object] = {}
    for line in lines:
        bare = _without_comment(line)
        if not bare.strip():
            continue
        item = re.fullmatch(r"(\s*)-\s+(.*)", bare)
        if item is not None:
            key = ".".join(name for _, name in path)
            if not key or not isinstance(out.setdefault(key, []), list):
                return None
            out[key] = [*_as_list(out[key]), _scalar(item[2])]
            continue
        entry = _ENTRY.fullmatch(bare)
        if entry is None:
            return None
        depth = len(entry["indent"])
        path = [(level, name) for level, name in path if level < depth] + [(depth, entry["key"])]
        value = (entry["value"] or "").strip()
        if value:
            out[".".join(name for _, name in path)] = _value(value)
    return out or None


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _without_comment(line: str) -> str:
    quoted = ""
    for at, char in enumerate(line):
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "\"'":
            quoted = char
        elif char == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at].rstrip()
    return line.rstrip()


def _value(text: str) -> object:
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(part) for part in text[1:-1].split(",") if part.strip()]
    return _scalar(text)


_CONSTANTS: Mapping[str, bool] = {"true": True, "false": False}
_NUMBER: Callable[[str], re.Match[str] | None] = re.compile(r"0|-?[1-9]\d*").fullmatch


def _scalar(text: str) -> object:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    return int(text) if _NUMBER(text) else text
