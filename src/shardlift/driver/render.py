"""A node's configuration for an image: the image's own defaults made fit for the node's place, and our yml."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from shardlift.driver.jvm import VECTOR, Jvm
from shardlift.driver.layout import NodePaths
from shardlift.driver.translate import Release, has_role_list, role_words
from shardlift.images import UnpackedImage
from shardlift.model import EngineKind, Node, Version

_MERGED = ("jvm.options", "log4j2.properties")
_ZONE_LINE = re.compile(r"^node\.attr\.zone[ \t]*:.*$", re.MULTILINE)
_MANAGERS = frozenset({"master", "cluster_manager"})


def yml_name(engine: EngineKind) -> str:
    return f"{engine}.yml"


def release_of(image: UnpackedImage) -> Release:
    return Release(image.engine, image.version, secured=(image.path / "modules" / "x-pack-security").is_dir())


def render_defaults(image: UnpackedImage, paths: NodePaths, jvm: Jvm, heap_mib: int, into: Path) -> None:
    """Writes the image's default configuration, without the yml, as it is right for this node into the new folder."""
    shutil.copytree(image.path / "config", into)
    (into / yml_name(image.engine)).unlink(missing_ok=True)
    options = into / "jvm.options"
    options.write_text(_jvm_options(options.read_text("utf-8"), paths, jvm, heap_mib), "utf-8")
    for path in into.rglob("*"):
        path.chmod(0o750 if path.is_dir() else 0o640)
    into.chmod(0o750)


def _jvm_options(text: str, paths: NodePaths, jvm: Jvm, heap_mib: int) -> str:
    """Relative paths lead into the engine's folder, which nodes share and may not write: all become the node's own."""
    lines = []
    for line in text.splitlines():
        if re.match(r"\s*-Xm[sx]", line) or (VECTOR in line and not line.startswith("#") and not jvm.has_vector):
            continue
        if line.startswith("#"):
            lines.append(line)
            continue
        changed = re.sub(r"(=|:)logs/", rf"\g<1>{paths.logs}/", line)
        changed = re.sub(r"HeapDumpPath=data$", f"HeapDumpPath={paths.logs}", changed)
        lines.append(re.sub(r"-javaagent:(?!/)", f"-javaagent:{paths.engine}/", changed))
    return "\n".join([*lines, "", f"-Xms{heap_mib}m", f"-Xmx{heap_mib}m", ""])


def render_yml(image: UnpackedImage, node: Node, seeds: Sequence[Node], paths: NodePaths) -> str:
    """The node's settings in the words of the image's version. Initial masters are not among them: see `start`."""
    release = release_of(image)
    managers = [seed for seed in seeds if not seed.roles or _MANAGERS & set(seed.roles)]
    hosts = [f"{seed.address}:{seed.transport_port}" for seed in managers or seeds]
    modern = release.reaches("7.0.0", "1.0.0")
    settings: dict[str, object] = {
        "cluster.name": node.cluster_id,
        "node.name": node.name,
        "node.attr.zone": node.zone,
        "path.data": str(paths.data),
        "path.logs": str(paths.logs),
        "network.host": node.address,
        "http.port": node.http_port,
        "transport.port" if modern else "transport.tcp.port": node.transport_port,
        "discovery.seed_hosts" if modern else "discovery.zen.ping.unicast.hosts": hosts,
    }
    if not modern:
        settings["discovery.zen.minimum_master_nodes"] = len(managers) // 2 + 1
    if node.roles:
        settings |= _roles(node.roles, release)
    if release.secured:
        settings["xpack.security.enabled"] = False
    # JSON values are YAML values, so no character of a name or a path can change the meaning.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items())


def in_zone(yml: str, zone: str) -> str:
    """The settings with `node.attr.zone` as given. Nothing else is touched, comments and order included."""
    line = f"node.attr.zone: {json.dumps(zone)}"
    changed, count = _ZONE_LINE.subn(lambda _: line, yml)
    return changed if count else f"{yml.rstrip()}\n{line}\n".lstrip()


def _roles(roles: tuple[str, ...], release: Release) -> dict[str, object]:
    words = role_words(roles, release)
    if has_role_list(release):
        return {"node.roles": list(words)}
    return {f"node.{flag}": flag in words for flag in ("master", "data", "ingest")}


def bootstrap_arguments(engine: EngineKind, version: Version, masters: tuple[str, ...]) -> tuple[str, ...]:
    """Command-line words that name the initial masters; none where a quorum setting does that (6.8)."""
    release = Release(engine, version)
    if not masters or not release.reaches("7.0.0", "1.0.0"):
        return ()
    word = "cluster_manager" if release.is_opensearch and release.reaches("0.0.0", "2.0.0") else "master"
    return (f"-Ecluster.initial_{word}_nodes={','.join(masters)}",)


def merge_lines(name: str, user: str, pristine: str, target: str) -> str | None:
    """For line-wise files: the target's defaults with the user's own lines added and those he removed left out.

    None for other files: there the user's file is taken whole.
    """
    if name not in _MERGED:
        return None
    before, now = pristine.splitlines(), user.splitlines()
    removed = {line for line in before if line.strip()} - set(now)
    added = [line for line in now if line.strip() and line not in set(before)]
    kept = [line for line in target.splitlines() if line not in removed]
    return "\n".join([*kept, *(line for line in added if line not in kept), ""])
