"""Which version may follow which, and how old an index a version still opens.

Sources: the Elastic and OpenSearch upgrade guides and the join checks of both engines (JoinTaskExecutor), gathered in
docs/rules/version_hop_allowed.md and index_compatible.md.
"""

from __future__ import annotations

from shardlift.model import EngineKind, Version

_ES = EngineKind.ELASTICSEARCH
_OS = EngineKind.OPENSEARCH

# (target engine, target major) -> (source engine, lowest version, lowest version no longer allowed); the target itself
# bounds a source of the same engine from above.
_SOURCES: dict[tuple[EngineKind, int], tuple[tuple[EngineKind, Version, Version], ...]] = {
    (_ES, 6): ((_ES, Version(5, 6, 0), Version(7, 0, 0)),),
    (_ES, 7): ((_ES, Version(6, 8, 0), Version(8, 0, 0)),),
    (_ES, 8): ((_ES, Version(7, 17, 0), Version(9, 0, 0)),),
    (_ES, 9): ((_ES, Version(8, 18, 0), Version(10, 0, 0)),),
    (_OS, 1): ((_ES, Version(6, 8, 0), Version(7, 11, 0)), (_OS, Version(1, 0, 0), Version(2, 0, 0))),
    (_OS, 2): ((_ES, Version(7, 10, 0), Version(7, 11, 0)), (_OS, Version(1, 0, 0), Version(3, 0, 0))),
    (_OS, 3): ((_OS, Version(2, 19, 0), Version(4, 0, 0)),),
}

# (target engine, target major) -> oldest Elasticsearch and oldest OpenSearch version an index may have been created on.
_OLDEST_INDEX: dict[tuple[EngineKind, int], tuple[Version | None, Version | None]] = {
    (_ES, 6): (Version(5, 0, 0), None),
    (_ES, 7): (Version(6, 0, 0), None),
    (_ES, 8): (Version(7, 0, 0), None),
    (_ES, 9): (Version(8, 0, 0), None),
    (_OS, 1): (Version(6, 0, 0), Version(1, 0, 0)),
    (_OS, 2): (Version(7, 0, 0), Version(1, 0, 0)),
    (_OS, 3): (None, Version(2, 0, 0)),
}


def hop_allowed(engine: EngineKind, version: Version, to_engine: EngineKind, to_version: Version) -> str | None:
    """None when nodes of the first may be replaced one by one by the second; else the reason why not."""
    if engine is to_engine and to_version < version:
        return f"{to_version} is older than {version}, and an older engine cannot read what a newer one wrote"
    sources = _SOURCES.get((to_engine, to_version.major))
    if sources is None:
        return f"no rule tells what may be upgraded to {to_engine} {to_version.major}"
    for source, low, high in sources:
        if source is engine and low <= version < high:
            return None
    told = " or ".join(f"{source} {low} up to, not including, {high}" for source, low, high in sources)
    return f"{to_engine} {to_version} takes nodes from {told}; the cluster runs {engine} {version}"


def oldest_index(engine: EngineKind, created_by: EngineKind, created_on: Version, to_version: Version) -> str | None:
    """None when `engine` `to_version` opens an index created so; else the reason. `engine` is the target's."""
    bounds = _OLDEST_INDEX.get((engine, to_version.major))
    if bounds is None:
        return f"no rule tells which indices {engine} {to_version.major} opens"
    oldest = bounds[0] if created_by is _ES else bounds[1]
    if oldest is None:
        return f"{engine} {to_version} opens no index created by {created_by} {created_on}"
    if created_on < oldest:
        return f"{engine} {to_version} opens indices created on {created_by} {oldest} or later, not {created_on}"
    return None
