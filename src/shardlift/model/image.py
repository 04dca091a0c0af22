"""Engine images: which release of which engine, and where its archive comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class EngineKind(StrEnum):
    """The two engines Shardlift upgrades; the values are the CSS `datastoreType` words."""

    ELASTICSEARCH = "elasticsearch"
    OPENSEARCH = "opensearch"


_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A release number `major.minor.patch`; compares numerically. Qualifiers such as `-SNAPSHOT` are dropped."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Reads `2.19.4` (or `2.19.4-rc1`). Raises ValueError on anything else."""
        match = _VERSION.match(text)
        if match is None:
            raise ValueError(f"not a version: {text!r}, expected major.minor.patch")
        return cls(*(int(part) for part in match.groups()))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, slots=True)
class Image:
    """One engine release that nodes can run.

    Exactly one of `coordinates` (`group:artifact:version:packaging`), `path` and `url` says where the archive is.
    `sha256` is its digest in lower-case hex; an archive with another digest is never unpacked.
    `java_min` and `java_max` are the Java feature releases (inclusive) that the engine runs on, `java_module` one that
    it needs besides those that every Java has; runtimes cut to size lack it.
    """

    id: str
    display_name: str
    description: str
    engine: EngineKind
    version: Version
    sha256: str
    size_bytes: int
    java_min: int
    java_max: int
    priority: int
    coordinates: str | None = None
    path: str | None = None
    url: str | None = None
    java_module: str | None = None

    @property
    def java(self) -> str:
        """Which Javas it runs on, for people."""
        return java_words(self.java_min, self.java_max, self.java_module)

    @property
    def reference(self) -> str:
        """The short name people type: `opensearch:2.19.4`."""
        return f"{self.engine}:{self.version}"


def java_words(java_min: int, java_max: int, java_module: str | None) -> str:
    """Which Javas an engine runs on, for people: `11 to 21`, `17 to 21 with the module jdk.jlink`."""
    module = f" with the module {java_module}" if java_module else ""
    return f"{java_min} to {java_max}{module}"
